"""Validation of configs: fields, values, and combinations of them.

`configs/default.py` has the fields with their types, ranges and default values.
"""

import difflib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict
from pydantic import ValidationError

from dcgan_jax import gradient_penalties, optimizers
from dcgan_jax.config_types import CHANGEABLE, Group
from dcgan_jax.configs import default
from dcgan_jax.data import captions, degradations
from dcgan_jax.losses import LOSSES
from dcgan_jax.metrics.registry import METRIC_OF_RESULT
from dcgan_jax.runtime.errors import ConfigError


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'a': {'b': 1}} to {'a.b': 1}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f'{prefix}{name}.')
        else:
            flat[prefix + name] = value
    return flat


FIELDS = tuple(flatten(default.Config().model_dump()))


def validate(config: ConfigDict) -> None:
    """Raise an error if a config has an unknown or missing field or an invalid value.

    Args:
        config: A `ConfigDict` with the fields of `configs/default.py`.

    Raises:
        ConfigError: If a field is unknown, missing or invalid, or fields are incompatible.
    """
    values = with_tuples(config.to_dict())
    try:
        default.Config.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()
        message = '; '.join(map(_describe_error, wrong))
        raise ConfigError(message, tuple(map(_field_of, wrong))) from error
    missing = tuple(name for name in FIELDS if name not in flatten(values))
    if missing:
        raise ConfigError(f'config.{missing[0]} is missing; start from configs/default.py', missing)
    for network in ('generator', 'discriminator'):
        _check_stages(network, config[network])
    for fields, message in _conflicts(config):
        raise ConfigError(message, fields)


def _field_of(error: dict[str, Any]) -> str:
    """Return the field name of a pydantic error."""
    return '.'.join(part for part in error['loc'] if isinstance(part, str))


def _describe_error(error: dict[str, Any]) -> str:
    """Format a pydantic error."""
    name = _field_of(error)
    if error['type'] == 'extra_forbidden':
        close = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f'; did you mean config.{close[0]}?' if close else ''
        return f'config.{name} is not a field{hint}'
    index = ''.join(f'[{part}]' for part in error['loc'] if isinstance(part, int))
    message = error['msg'][0].lower() + error['msg'][1:]
    return f'config.{name}{index}={error["input"]!r:.99}: {message}'


def _check_stages(network: str, layers: ConfigDict) -> None:
    """Raise an error if a field that has one element per stage has another length."""
    extra = 1 if network == 'generator' else 0  # G's last convolution makes the image.
    count = len(layers.features) + extra
    for name in ('strides', 'kernel_sizes'):
        field = f'{network}.{name}'
        if len(layers[name]) != count and (layers[name] or name == 'strides'):
            raise ConfigError(
                f'config.{field}={tuple(layers[name])} must have {count} elements: one for each of '
                f'features={tuple(layers.features)}' + (' and one for the image' if extra else ''),
                (field,),
            )
    if any(stage >= len(layers.features) for stage in layers.attention):
        raise ConfigError(
            f'config.{network}.attention={tuple(layers.attention)} must have indices of stages: '
            f'0 to {len(layers.features) - 1}',
            (f'{network}.attention',),
        )


Conflict = tuple[tuple[str, ...], str]


def _conflicts(config: ConfigDict) -> Iterator[Conflict]:
    """Yield (fields, message) for incompatible field values."""
    yield from _loss_conflicts(config)
    yield from _optimizer_conflicts(config)
    yield from _discriminator_conflicts(config)
    yield from _conditioning_conflicts(config)
    if degradations.takes_images(config):
        yield from _image_input_conflicts(config)
    metric = METRIC_OF_RESULT[config.evaluation.best]
    if config.evaluation.every and metric not in config.evaluation.metrics:
        yield (
            ('evaluation.best', 'evaluation.metrics'),
            f'config.evaluation.best={config.evaluation.best!r} is not measured; add {metric!r} to '
            'config.evaluation.metrics or choose another',
        )


def _loss_conflicts(config: ConfigDict) -> Iterator[Conflict]:
    """Yield conflicts of the losses and of adaptive augmentation."""
    loss, augment = config.loss, config.augment
    uses_discriminator = loss.adversarial_weight or loss.feature_matching_weight
    if loss.label_smoothing and not LOSSES[loss.name].has_real_label:
        yield (
            ('loss.label_smoothing', 'loss.name'),
            f'config.loss.label_smoothing={loss.label_smoothing} is not supported by '
            f'config.loss.name={loss.name!r}; set it to 0.0',
        )
    if augment.ada_target and loss.name not in ('non_saturating', 'hinge'):
        yield (
            ('augment.ada_target', 'loss.name'),
            'config.augment.ada_target needs logits that are positive for real images, which '
            f"config.loss.name={loss.name!r} does not give; use 'non_saturating' or 'hinge', or "
            'set it to 0.0',
        )
    if augment.ada_target and not augment.policy:
        yield (
            ('augment.ada_target', 'augment.policy'),
            'config.augment.ada_target needs a config.augment.policy, for example '
            "('color', 'translation', 'cutout')",
        )
    if loss.generator_rotation_weight and not loss.rotation_weight:
        yield (
            ('loss.generator_rotation_weight', 'loss.rotation_weight'),
            'config.loss.generator_rotation_weight needs config.loss.rotation_weight > 0, so that '
            'D learns to predict rotations (SSGAN: 1.0, and 0.2 for G)',
        )
    if not config.discriminator_steps and (uses_discriminator or augment.ada_target):
        yield (
            ('discriminator_steps',),
            'config.discriminator_steps=0 needs config.loss.adversarial_weight, '
            'config.loss.feature_matching_weight and config.augment.ada_target to be 0.0',
        )
    if degradations.takes_images(config):
        if not (uses_discriminator or loss.content_weight):
            yield (
                ('loss.adversarial_weight', 'loss.content_weight', 'loss.feature_matching_weight'),
                'config.loss.adversarial_weight, content_weight and feature_matching_weight are '
                'all 0.0; set one above 0.0',
            )
    elif not loss.adversarial_weight or loss.content_weight or loss.feature_matching_weight:
        yield (
            ('loss.adversarial_weight', 'loss.content_weight', 'loss.feature_matching_weight'),
            "config.input.kind='latent' has no target images; set config.loss.adversarial_weight "
            'above 0.0, content_weight and feature_matching_weight to 0.0',
        )


def _optimizer_conflicts(config: ConfigDict) -> Iterator[Conflict]:
    for network, optimizer in config.optimizer.items():
        name = f'optimizer.{network}'
        decays = optimizer.schedule != 'constant'
        if decays and optimizer.decay_end <= optimizer.decay_start:
            yield (
                (f'{name}.decay_end', f'{name}.decay_start'),
                f'config.{name}.decay_end={optimizer.decay_end} must be larger than '
                f'decay_start={optimizer.decay_start}; set it to the last step of the run',
            )
        for option in ('momentum', 'weight_decay'):
            if optimizer[option] and option not in optimizers.options(optimizer.name):
                yield (
                    (f'{name}.{option}', f'{name}.name'),
                    f'config.{name}.{option}={optimizer[option]} is not an option of '
                    f'{optimizer.name!r}; set it to 0.0',
                )


def _discriminator_conflicts(config: ConfigDict) -> Iterator[Conflict]:
    """Yield conflicts of D's penalties, of packing and of minibatch standard deviation."""
    pack, group = config.discriminator.pack, config.discriminator.minibatch_stddev
    packs, rest = divmod(config.batch_size, pack)
    if config.penalty.wgan_gp and config.discriminator.norm == 'batch':
        yield (
            ('penalty.wgan_gp', 'discriminator.norm'),
            'config.penalty.wgan_gp needs the gradient of each image independently of the '
            "batch, which config.discriminator.norm='batch' does not have; use 'layer' or 'none' "
            '(Gulrajani et al. 2017, section 4)',
        )
    if config.penalty.wgan_gp and pack > 1:
        yield (
            ('penalty.wgan_gp', 'discriminator.pack'),
            f'config.penalty.wgan_gp does not support config.discriminator.pack={pack}; use '
            'config.penalty.r1',
        )
    if rest or (group and packs > group and packs % group):
        yield (
            ('batch_size', 'discriminator.pack', 'discriminator.minibatch_stddev'),
            f'config.batch_size={config.batch_size} is not divisible by discriminator.pack * '
            f'max(discriminator.minibatch_stddev, 1) = {pack * max(group, 1)}',
        )
    if config.loss.rotation_weight and pack > 1:
        yield (
            ('loss.rotation_weight', 'discriminator.pack'),
            f'config.loss.rotation_weight does not support config.discriminator.pack={pack}; set '
            'it to 0.0',
        )


def _conditioning_conflicts(config: ConfigDict) -> Iterator[Conflict]:
    if captions.is_used(config) and not config.conditional:
        yield (
            ('text.embedder', 'conditional'),
            'config.text.embedder needs config.conditional=True',
        )
    if any('{}' not in template for template in config.text.templates):
        yield (
            ('text.templates',),
            f'config.text.templates={tuple(config.text.templates)} must each contain {{}} for the '
            "name of a class, for example 'a photo of a {}'",
        )
    if config.conditional and config.generator.norm == 'none':
        yield (
            ('conditional', 'generator.norm'),
            'config.conditional needs a config.generator.norm, whose scale and bias depend on the '
            "class; use 'batch'",
        )
    if config.conditional and config.discriminator.pack > 1:
        yield (
            ('conditional', 'discriminator.pack'),
            'config.conditional does not support config.discriminator.pack > 1; set it to 1',
        )


def _image_input_conflicts(config: ConfigDict) -> Iterator[Conflict]:
    """Yield conflicts with inputs of G that are images."""
    kind = f'config.input.kind={config.input.kind!r}'
    if config.loss.rotation_weight:
        yield (
            ('loss.rotation_weight', 'input.kind'),
            f'{kind} does not support config.loss.rotation_weight; set it to 0.0',
        )
    if config.generator.strides and config.generator.strides[-1] != 1:
        yield (
            ('generator.strides', 'input.kind'),
            f'config.generator.strides={tuple(config.generator.strides)} must end with 1 for '
            f'{kind}',
        )
    supported = {'block': 'conv', 'attention': (), 'stem_features': ()}
    for field, value in supported.items():
        if with_tuples(config.generator[field]) != value:
            yield (
                (f'generator.{field}', 'input.kind'),
                f'{kind} does not support config.generator.{field}; set it to {value!r}',
            )
    if config.ema.batch_stats != 'average':
        yield (
            ('ema.batch_stats', 'input.kind'),
            f"config.ema.batch_stats={config.ema.batch_stats!r} needs latents; use 'average' for "
            f'{kind}',
        )
    if config.conditional:
        yield (
            ('conditional', 'input.kind'),
            f'{kind} does not support config.conditional; set it to False',
        )


def warnings(config: ConfigDict) -> list[str]:
    """Return a warning for each setting of a valid config that is probably a mistake."""
    found = []
    used = ', '.join(
        f'config.penalty.{name}' for name in gradient_penalties.NAMES if config.penalty[name]
    )
    if used and config.discriminator.norm == 'batch':
        found.append(
            f"{used} with config.discriminator.norm='batch': the penalized gradient of an image "
            'depends on the whole batch, unlike in the papers; other norms do not have this effect'
        )
    if used and config.discriminator.minibatch_stddev:
        found.append(
            f'{used} with config.discriminator.minibatch_stddev: the penalized gradient of an '
            'image depends on the other images of its group; to avoid that, set one of them to 0'
        )
    bounded = config.discriminator.spectral_norm or config.penalty.wgan_gp or config.penalty.dragan
    if config.loss.name == 'wasserstein' and not bounded:
        found.append(
            "config.loss.name='wasserstein' needs a Lipschitz bound on D; set "
            'config.penalty.wgan_gp (10.0) or config.discriminator.spectral_norm'
        )
    return found


def changeable_groups() -> list[str]:
    """Return the names of the groups that may change when a run is resumed."""
    groups = {
        name: field for name, field in default.Config.model_fields.items() if _is_group(field)
    }
    return [name for name, field in groups.items() if CHANGEABLE in field.metadata]


def _is_changeable(name: str) -> bool:
    """Return whether a field, e.g. 'optimizer.generator.b1', may change when a run is resumed."""
    group = default.Config
    for part in name.split('.'):
        field = group.model_fields.get(part) if group else None
        if field is None:
            return False
        if CHANGEABLE in field.metadata:
            return True
        group = field.annotation if _is_group(field) else None
    return False


def _is_group(field: Any) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Group)


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Return a line 'field: old -> new' for each changed field that is not CHANGEABLE."""
    old_values, new_values = (flatten(with_tuples(each.to_dict())) for each in (old, new))
    missing = object()
    changed = []
    for name in sorted(old_values.keys() | new_values.keys()):
        before, after = old_values.get(name, missing), new_values.get(name, missing)
        if before != after and not _is_changeable(name):
            shown = ['unset' if value is missing else repr(value) for value in (before, after)]
            changed.append(f'{name}: {shown[0]} -> {shown[1]}')
    return changed


def with_tuples(tree: Any) -> Any:
    """Convert lists to tuples recursively; JSON has no tuples."""
    if isinstance(tree, dict):
        return {name: with_tuples(value) for name, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree

"""Incompatible values of config fields."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from dcgan_jax import optimizers
from dcgan_jax.config_types import with_tuples
from dcgan_jax.data import captions, degradations
from dcgan_jax.losses import LOSSES
from dcgan_jax.metrics.registry import METRIC_OF_RESULT

Conflict = tuple[tuple[str, ...], str]
# Fields of `config.generator` that `config.distill.init='pruned'` needs.
NEEDED_BY_PRUNING = {
    'block': 'conv', 'norm': 'batch', 'stem_norm': True, 'attention': (), 'stem_features': (),
    'branches': (), 'spectral_norm': False,
}  # fmt: skip


def find(config: ConfigDict) -> Iterator[Conflict]:
    """Yield (fields, message) for incompatible field values."""
    yield from _loss_conflicts(config)
    yield from _optimizer_conflicts(config)
    yield from _discriminator_conflicts(config)
    yield from _conditioning_conflicts(config)
    if degradations.takes_images(config):
        yield from _image_input_conflicts(config)
    yield from _distillation_conflicts(config)
    metric = METRIC_OF_RESULT[config.evaluation.best]
    if config.evaluation.every and metric not in config.evaluation.metrics:
        yield (
            ('evaluation.best', 'evaluation.metrics'),
            f'config.evaluation.best={config.evaluation.best!r} is not computed; add {metric!r} to '
            'config.evaluation.metrics, or select by another result',
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
    if augment.ada_target and not LOSSES[loss.name].real_logits_are_positive:
        supported = [repr(name) for name in LOSSES if LOSSES[name].real_logits_are_positive]
        yield (
            ('augment.ada_target', 'loss.name'),
            'config.augment.ada_target needs a loss for which the logits of real images are '
            f'positive, unlike config.loss.name={loss.name!r}; use {" or ".join(supported)}, or '
            'set ada_target to 0.0',
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
    if loss.feature_matching_weight and config.discriminator.dropout_rate:
        yield (
            ('loss.feature_matching_weight', 'discriminator.dropout_rate'),
            'config.loss.feature_matching_weight needs config.discriminator.dropout_rate=0.0, '
            'because D would apply different dropout masks to an image and its target',
        )
    is_trained = config.distill.discriminator == 'teacher' or config.init_from
    features = loss.feature_matching_weight and not is_trained
    if not config.discriminator_steps and (
        loss.adversarial_weight or features or augment.ada_target
    ):
        yield (
            ('discriminator_steps',),
            'config.discriminator_steps=0 needs config.loss.adversarial_weight, '
            'config.augment.ada_target and config.loss.feature_matching_weight to be 0.0; the last '
            "may be above 0.0 with config.distill.discriminator='teacher' or config.init_from",
        )
    if degradations.takes_images(config) or config.distill.teacher:
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
            'above 0.0, content_weight and feature_matching_weight to 0.0, or set '
            'config.distill.teacher',
        )


def _distillation_conflicts(config: ConfigDict) -> Iterator[Conflict]:
    generator, distill = config.generator, config.distill
    if not distill.teacher:
        for name in ('init', 'discriminator'):
            if distill[name] != 'random':
                yield (
                    (f'distill.{name}', 'distill.teacher'),
                    f'config.distill.{name}={distill[name]!r} needs config.distill.teacher; set it '
                    "to the folder of a run, or use 'random'",
                )
        return
    if degradations.takes_images(config):
        yield (
            ('distill.teacher', 'input.kind'),
            f'config.distill.teacher needs latents, and config.input.kind={config.input.kind!r} '
            "gives images; set it to ''",
        )
    if not (config.loss.content_weight or config.loss.feature_matching_weight):
        yield (
            ('distill.teacher', 'loss.content_weight', 'loss.feature_matching_weight'),
            'config.distill.teacher needs config.loss.content_weight or '
            'config.loss.feature_matching_weight above 0.0',
        )
    for name, value in NEEDED_BY_PRUNING.items():
        if distill.init == 'pruned' and with_tuples(generator[name]) != value:
            yield (
                ('distill.init', f'generator.{name}'),
                f"config.distill.init='pruned' needs config.generator.{name}={value!r}; use "
                "'random'",
            )
    for name in ('init', 'discriminator'):
        if config.init_from and distill[name] != 'random':
            yield (
                (f'distill.{name}', 'init_from'),
                f'config.distill.{name}={distill[name]!r} would replace a network of '
                "config.init_from; use 'random'",
            )
    if distill.init == 'pruned' and config.conditional:
        yield (
            ('distill.init', 'conditional'),
            "config.distill.init='pruned' does not support config.conditional; use 'random'",
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
            'config.penalty.wgan_gp needs gradients that do not depend on other images of the '
            "batch, unlike those of config.discriminator.norm='batch'; use 'layer' or 'none' "
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
            "config.conditional does not support config.generator.norm='none', because the class "
            "determines the scale and bias of G's norms; use 'batch'",
        )
    if config.conditional and config.discriminator.pack > 1:
        yield (
            ('conditional', 'discriminator.pack'),
            'config.conditional does not support config.discriminator.pack > 1; set it to 1',
        )


def _image_input_conflicts(config: ConfigDict) -> Iterator[Conflict]:
    """Yield conflicts of a generator whose inputs are images."""
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

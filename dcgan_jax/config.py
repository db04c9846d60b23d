"""What a config may hold: every field, its kind and its range, checked before anything compiles.

The default values are in `configs/default.py`; other configs change some of them.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from dcgan_jax import augmentation, gradient_penalties, optimizers
from dcgan_jax.data import captions, corrupt_records, degradations, input_pipeline
from dcgan_jax.losses import LOSSES
from dcgan_jax.metrics.evaluator import METRIC_OF_RESULT, METRICS
from dcgan_jax.models import blocks, conv, norms
from dcgan_jax.runtime import nonfinite
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import is_unicode

# Computed in tasks/anomaly_scores.py.
ANOMALY_SCORES = 'discriminator', 'rotation', 'mahalanobis', 'neighbors', 'encoder', 'search'
_LARGEST = 3.4e38  # Of float32; what is larger would be infinite.


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in [low, high], or in [low, high) where `below`; an integer where `integer`."""

    low: float
    high: float = _LARGEST
    integer: bool = False
    below: bool = False

    def __str__(self) -> str:
        kind = 'an integer' if self.integer else 'a number'
        if self.high == _LARGEST:
            return f'{kind} of at least {self.low}'
        return f'{kind} from {self.low} to {self.high}' + (' (not included)' if self.below else '')

    def accepts(self, value: Any) -> bool:
        """Whether `value` is such a number; True, NaN and infinity are not."""
        kinds = int if self.integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return self.low <= value < self.high if self.below else self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return 'one of ' + ', '.join(repr(value) for value in self.values)

    def accepts(self, value: Any) -> bool:
        """Whether `value` is among them, type and all (1 is not True)."""
        return any(value == one and type(value) is type(one) for one in self.values)


@dataclasses.dataclass(frozen=True)
class Each:
    """A tuple whose elements each pass `check`, with at least `least` of them."""

    check: 'Number | Choice | Text'
    least: int = 0

    def __str__(self) -> str:
        least = f' of at least {self.least}' if self.least else ''
        return f'a tuple{least}, each {self.check}'

    def accepts(self, value: Any) -> bool:
        """Whether `value` is such a tuple (or list)."""
        return (
            isinstance(value, (tuple, list))
            and len(value) >= self.least
            and all(self.check.accepts(element) for element in value)
        )


@dataclasses.dataclass(frozen=True)
class Text:
    """A string; not an empty one where `filled`."""

    filled: bool = False

    def __str__(self) -> str:
        return 'a non-empty string' if self.filled else 'a string'

    def accepts(self, value: Any) -> bool:
        """Whether `value` is such a string, and one that files and their names can hold."""
        if not isinstance(value, str) or '\0' in value or not is_unicode(value):
            return False
        return bool(value or not self.filled)


def whole(low: int, high: int = 2**31 - 1) -> Number:
    """An integer in [low, high]; programs compute with 32 bits."""
    return Number(low, high, integer=True)


KERNEL = whole(1, 7)
FLAG = Choice((True, False))
SHARE = Number(0, 1, below=True)
PART = Number(0, 1)
OPTIMIZER = {
    'name': Choice(optimizers.NAMES),
    'learning_rate': Number(0),
    'b1': SHARE,
    'b2': SHARE,
    'eps': Number(0),
    'momentum': SHARE,
    'decay': SHARE,
    'weight_decay': Number(0),
    'clip_norm': Number(0),
    'warmup_steps': whole(0),
    'schedule': Choice(optimizers.SCHEDULES),
    'decay_start': whole(0),
    'decay_end': whole(0),
    'final_lr_ratio': PART,
}
LAYERS = {
    'block': Choice(blocks.BLOCKS),
    'features': Each(whole(1, 2**14)),
    'strides': Each(Choice((1, 2)), least=1),
    'kernel_size': KERNEL,
    'kernel_sizes': Each(KERNEL),
    'branches': Each(KERNEL),
    'attention': Each(whole(0)),
    'norm': Choice(norms.NORMS),
    'norm_momentum': SHARE,
    'norm_epsilon': Number(0),
    'leaky_slope': SHARE,
    'use_bias': FLAG,
    'weight_init': Choice(tuple(blocks.INITIALIZERS)),
    'weight_stddev': Number(0),
    'spectral_norm': FLAG,
    'width': Number(1e-3, 64),
}
SCHEMA = {
    'seed': whole(0, 2**32 - 1),
    'dataset': Text(filled=True),
    'data_dir': Text(),
    'data': {
        'split': Text(filled=True),
        'classes': Each(whole(0)),
        'placement': Choice(input_pipeline.PLACEMENTS),
        'device_limit_bytes': whole(0, 2**63 - 1),
        'image_size': whole(0, 4096),
        'on_corrupt': Choice(corrupt_records.CHOICES),
    },
    'batch_size': whole(1, 2**20),
    'num_steps': whole(0, 2**31 - 1),
    'steps_per_call': whole(0, 10_000),
    'log_every': whole(1),
    'sample_every': whole(0),
    'checkpoint_every': whole(1),
    'keep_checkpoints': whole(1),
    'profile': FLAG,
    'on_nonfinite': Choice(nonfinite.CHOICES),
    'max_skipped': whole(0),
    'max_rollbacks': whole(0),
    'dtype': Choice(('float32', 'bfloat16')),
    'lowering': Choice(tuple(conv.IMPLEMENTATIONS)),
    'input': {
        'kind': Choice(degradations.KINDS),
        'scale': Choice((2, 4, 8)),
        'mask': Choice(degradations.MASKS),
        'missing': Number(0.01, 0.99),  # Something is known, and something is not.
    },
    'latent_dim': whole(1, 2**14),
    'update_order': Choice(('alternating', 'simultaneous')),
    'discriminator_steps': whole(0, 64),
    'conditional': FLAG,
    'resample_latents': FLAG,
    'text': {
        'embedder': Choice(('', *captions.EMBEDDERS)),
        'templates': Each(Text(filled=True), least=1),
        'scale': Number(0),
        'mismatched': Number(0),
    },
    'generator': LAYERS
    | {
        'base_size': whole(1, 1024),
        'base_features': whole(1, 2**14),
        'stem_features': Each(whole(1, 2**14)),
        'stem_norm': FLAG,
        'activation': Choice(blocks.ACTIVATIONS),
    },
    'discriminator': LAYERS
    | {
        'minibatch_stddev': whole(0),
        'pack': whole(1, 64),
        'head': Choice(('flatten', 'sum')),
        'dropout_rate': SHARE,
    },
    'loss': {
        'name': Choice(tuple(LOSSES)),
        'real_label': PART,
        'flip_labels': PART,
        'adversarial': Number(0),
        'content': Number(0),
        'content_norm': Choice(('l1', 'l2')),
        'feature_matching': Number(0),
        'rotation': Number(0),
        'rotation_generator': Number(0),
    },
    'penalty': {**{name: Number(0) for name in gradient_penalties.NAMES}, 'interval': whole(1)},
    'augment': {
        'horizontal_flip': FLAG,
        'policy': Each(Choice(tuple(augmentation.POLICIES))),
        'probability': PART,
        'ada_target': SHARE,
        'ada_images': whole(1),
        'instance_noise': Number(0),
        'instance_noise_steps': whole(0),
    },
    'optimizer': {'generator': OPTIMIZER, 'discriminator': OPTIMIZER},
    'ema': {
        'halflife_images': Number(0),
        'rampup_ratio': Number(1e-6),
        'batch_stats': Choice(('standing', 'average')),
        'standing_batches': whole(1),
    },
    'search': {
        'steps': whole(1),
        'restarts': whole(1, 2**12),
        'learning_rate': Number(0),
        'prior': Number(0),
    },
    'anomaly': {
        'scores': Each(Choice(ANOMALY_SCORES), least=1),
        'neighbors': whole(1, 1000),
        'encoder_steps': whole(1),
        'encoder_learning_rate': Number(0),
    },
    'evaluation': {
        'every': whole(0),
        'best': Choice(tuple(METRIC_OF_RESULT)),
        'num_samples': whole(2, 1_000_000),
        'extractor': Text(filled=True),
        'inception_weights': Text(),
        'metrics': Each(Choice(tuple(METRICS)), least=1),
        'split': Text(filled=True),
        'num_real': whole(2, 1_000_000),
        'reference': Text(),
        'batch_size': whole(1, 4096),
    },
}

# Fields that a run may change when it goes on: they change how long, where and how often, not what.
CHANGEABLE_GROUPS = ('evaluation', 'search', 'anomaly')  # Of what is done with a run.
CHANGEABLE = (
    'data_dir', 'data.placement', 'data.device_limit_bytes', 'data.on_corrupt', 'num_steps',
    'log_every', 'sample_every', 'checkpoint_every', 'keep_checkpoints', 'profile',
    'on_nonfinite', 'max_skipped', 'max_rollbacks',
    *(f'{group}.{name}' for group in CHANGEABLE_GROUPS for name in SCHEMA[group]),
)  # fmt: skip


def validate(config: ConfigDict) -> None:
    """Refuses a config with an unknown or missing field, or a value out of range.

    Raises:
        UserError: names the field, its value and what it may be.
    """
    fields, values = flatten(SCHEMA), flatten(config.to_dict())
    for name in values:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f': did you mean config.{close[0]}?' if close else ''
            raise UserError(f'config.{name} is no field of a config{hint}')
    for name, check in fields.items():
        if name not in values:
            raise UserError(f'config.{name} is missing: it must be {check}')
        if not check.accepts(values[name]):
            raise UserError(f'config.{name}={values[name]!r} must be {check}')
    for network in ('generator', 'discriminator'):
        _check_stages(network, config[network])
    for problem, remedy in _conflicts(config):
        raise UserError(f'{problem}: {remedy}')


def _check_stages(network: str, layers: ConfigDict) -> None:
    """Refuses lists that should have an element for each stage."""
    extra, last = (
        (1, ' and one for the convolution to the image') if network == 'generator' else (0, '')
    )
    count = len(layers.features) + extra
    for field in ('strides', 'kernel_sizes'):
        if len(layers[field]) != count and (layers[field] or field == 'strides'):
            raise UserError(
                f'config.{network}.{field}={tuple(layers[field])} must have one for each of '
                f'features={tuple(layers.features)}{last}: {count} in all'
            )
    if any(stage >= len(layers.features) for stage in layers.attention):
        raise UserError(
            f'config.{network}.attention={tuple(layers.attention)} must name stages from 0 to '
            f'{len(layers.features) - 1}'
        )


def _conflicts(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """(what does not go together, what to do) for each such pair of fields."""
    if config.loss.real_label != 1 and not LOSSES[config.loss.name].labeled:
        yield (
            f'config.loss.real_label={config.loss.real_label} means nothing to '
            f'{config.loss.name!r}',
            'set it to 1.0, or take another loss',
        )
    if config.penalty.wgan_gp and config.discriminator.norm == 'batch':
        yield (
            "config.penalty.wgan_gp needs each image's own gradient, which "
            "config.discriminator.norm='batch' has not",
            "take 'layer' or 'none' (Gulrajani et al. 2017, section 4)",
        )
    pack, group = config.discriminator.pack, config.discriminator.minibatch_stddev
    if pack > 1 and config.conditional:
        yield 'config.discriminator.pack and config.conditional exclude each other', 'drop one'
    packs, rest = divmod(config.batch_size, pack)
    if rest or (group and packs > group and packs % group):
        yield (
            f'config.batch_size={config.batch_size} must be divisible by '
            'discriminator.pack * max(discriminator.minibatch_stddev, 1)',
            f'it is not by {pack} * {max(group, 1)}',
        )
    for name, optimizer in config.optimizer.items():
        decays = optimizer.schedule != 'constant'
        if decays and optimizer.decay_end <= optimizer.decay_start:
            yield (
                f'config.optimizer.{name}.decay_end={optimizer.decay_end} must come after '
                f'decay_start={optimizer.decay_start}',
                'set it to the last step of the run',
            )
        for option in ('momentum', 'weight_decay'):
            if optimizer[option] and option not in optimizers.options(optimizer.name):
                yield (
                    f'config.optimizer.{name}.{option}={optimizer[option]} means nothing to '
                    f'{optimizer.name!r}',
                    'set it to 0.0, or take another optimizer',
                )
    metric = METRIC_OF_RESULT[config.evaluation.best]
    if config.evaluation.every and metric not in config.evaluation.metrics:
        yield (
            f'config.evaluation.best={config.evaluation.best!r} is not measured',
            f'add {metric!r} to config.evaluation.metrics, or choose another',
        )
    if config.augment.ada_target and config.loss.name not in ('non_saturating', 'hinge'):
        yield (
            'config.augment.ada_target needs logits whose sign tells real from fake, which '
            f'those of config.loss.name={config.loss.name!r} are not',
            "take 'non_saturating' or 'hinge', or set it to 0.0",
        )
    if captions.is_used(config) and not config.conditional:
        yield 'config.text needs config.conditional', "set it to True, or .embedder to ''"
    if any('{}' not in template for template in config.text.templates):
        yield (
            f'config.text.templates={tuple(config.text.templates)} must each have {{}}',
            "it stands for the class's name: 'a photo of a {}'",
        )
    if config.conditional and config.generator.norm == 'none':
        yield (
            "config.conditional needs a config.generator.norm, which classes act by, not 'none'",
            "take 'batch', say",
        )
    if config.loss.generator_rotation_weight and not config.loss.rotation_weight:
        yield (
            'config.loss.generator_rotation_weight takes what D has learnt of turned images, which it '
            'has not',
            'set config.loss.rotation_weight above 0.0 (Chen et al. 2019: 1.0, and 0.2 for G)',
        )
    if config.loss.rotation_weight and (pack > 1 or degradations.takes_images(config)):
        yield (
            'config.loss.rotation_weight excludes config.discriminator.pack above 1 and images as inputs',
            'set it to 0.0',
        )
    if config.penalty.wgan_gp and config.discriminator.pack > 1:
        yield (
            'config.penalty.wgan_gp and config.discriminator.pack exclude each other',
            'take r1 for packed images',
        )
    yield from _conflicts_of_pairs(config)
    if config.augment.ada_target and not config.augment.policy:
        yield (
            'config.augment.ada_target adapts nothing',
            "set config.augment.policy, ('color', 'translation', 'cutout') say",
        )


def _conflicts_of_pairs(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) where G gets images, or should."""
    loss, kind = config.loss, config.input.kind
    judged = loss.adversarial_weight or loss.feature_matching_weight
    if not config.discriminator_steps and (judged or config.augment.ada_target):
        yield (
            'config.discriminator_steps=0 leaves D as it is, and it is asked for',
            'set config.loss.adversarial_weight, config.loss.feature_matching_weight and '
            'config.augment.ada_target to 0.0, or take 1',
        )
    if not degradations.takes_images(config):
        if not loss.adversarial_weight or loss.content_weight or loss.feature_matching_weight:
            yield (
                "config.input.kind='latent' makes no pairs of images, so G learns from D alone",
                'set config.loss.adversarial_weight above 0.0, .content and .feature_matching to 0.0',
            )
        return
    if not (judged or loss.content_weight):
        yield 'all weights of config.loss are 0.0: G has nothing to learn', 'set one above it'
    if config.generator.strides and config.generator.strides[-1] != 1:
        yield (
            f'config.generator.strides={tuple(config.generator.strides)}: the last is that of the '
            f'convolution to the image, which is 1 for config.input.kind={kind!r}',
            'end with 1',
        )
    plain = {'block': 'conv', 'attention': (), 'stem_features': ()}
    for field, value in plain.items():
        given = config.generator[field]
        if (tuple(given) if isinstance(given, list) else given) != value:
            yield (
                f'config.generator.{field} means nothing to config.input.kind={kind!r}',
                f'set it to {value!r}',
            )
    if config.ema.batch_stats != 'average':
        yield (
            "config.ema.batch_stats='standing' draws latents, which there are none of with "
            f'config.input.kind={kind!r}',
            "take 'average'",
        )
    if config.conditional:
        yield f'config.conditional and config.input.kind={kind!r} exclude each other', 'drop one'


def doubts(config: ConfigDict) -> list[str]:
    """What a valid config says that may not be meant, a line each."""
    lines = []
    used = ', '.join(
        f'config.penalty.{name}' for name in gradient_penalties.NAMES if config.penalty[name]
    )
    if used and config.discriminator.norm == 'batch':
        lines.append(
            f"{used} with config.discriminator.norm='batch': gradients are those of a whole batch, "
            "not of each image alone, which the papers mean; 'none', 'layer' or another norm has "
            'those'
        )
    if used and config.discriminator.minibatch_stddev:
        lines.append(
            f'{used} with config.discriminator.minibatch_stddev: each logit depends on the other '
            'images of its group, so gradients are those of a group, not of each image alone; set '
            'one of them to 0 unless that is meant'
        )
    bounded = config.discriminator.spectral_norm or config.penalty.wgan_gp or config.penalty.dragan
    if config.loss.name == 'wasserstein' and not bounded:
        lines.append(
            "config.loss.name='wasserstein' is a distance only where the slopes of D are bounded, "
            'and nothing bounds them: set config.penalty.wgan_gp (10.0), or '
            'config.discriminator.spectral_norm'
        )
    return lines


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Lines 'field: old -> new' of what differs between two configs and may not change in a run."""
    old_values, new_values = flatten(old.to_dict()), flatten(new.to_dict())
    missing = object()
    changed = []
    for name in sorted(old_values.keys() | new_values.keys()):
        before, after = old_values.get(name, missing), new_values.get(name, missing)
        if name not in CHANGEABLE and _plain(before) != _plain(after):
            shown = ['unset' if value is missing else repr(value) for value in (before, after)]
            changed.append(f'{name}: {shown[0]} -> {shown[1]}')
    return changed


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'a': {'b': 1}} to {'a.b': 1}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f'{prefix}{name}.')
        else:
            flat[prefix + name] = value
    return flat


def _plain(value: Any) -> Any:
    """JSON knows no tuples."""
    return list(value) if isinstance(value, tuple) else value

"""What a config may hold: every field, its kind and its range, checked before anything compiles.

The default values stand in `configs/cifar10.py`; other configs change some of them.
"""

import dataclasses
import difflib
import math
from typing import Any

from ml_collections import ConfigDict

from dcgan_jax import data
from dcgan_jax.errors import UserError
from dcgan_jax.evaluation import METRICS
from dcgan_jax.losses import LOSSES
from dcgan_jax.models import dcgan, lowering


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in [low, high], or in [low, high) where `below`; an integer where `integer`."""

    low: float
    high: float = math.inf
    integer: bool = False
    below: bool = False

    def __str__(self) -> str:
        kind = 'an integer' if self.integer else 'a number'
        if self.high == math.inf:
            return f'{kind} of at least {self.low}'
        return f'{kind} from {self.low} to {self.high}' + (' (not included)' if self.below else '')

    def accepts(self, value: Any) -> bool:
        """Whether `value` is such a number; True, NaN and infinity are not."""
        kinds = int if self.integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        if not math.isfinite(value):
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

    check: Number | Choice
    least: int = 0

    def __str__(self) -> str:
        return f'a tuple of at least {self.least}, each {self.check}'

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
        """Whether `value` is such a string."""
        return isinstance(value, str) and bool(value or not self.filled)


def whole(low: int, high: float = math.inf) -> Number:
    """An integer in [low, high]."""
    return Number(low, high, integer=True)


FLAG = Choice((True, False))
SHARE = Number(0, 1, below=True)
OPTIMIZER = {
    'learning_rate': Number(0),
    'b1': SHARE,
    'b2': SHARE,
    'eps': Number(0),
}
LAYERS = {
    'features': Each(whole(1, 2**14)),
    'strides': Each(Choice((1, 2)), least=1),
    'kernel_size': whole(1, 7),
    'norm': Choice(dcgan.NORMS),
    'norm_momentum': SHARE,
    'norm_epsilon': Number(0),
    'leaky_slope': SHARE,
    'use_bias': FLAG,
    'weight_init': Choice(tuple(dcgan.INITIALIZERS)),
    'weight_stddev': Number(0),
    'width': Number(0, 64),
}
SCHEMA = {
    'seed': whole(0, 2**32 - 1),
    'dataset': Text(filled=True),
    'data_dir': Text(),
    'data': {
        'placement': Choice(data.PLACEMENTS),
        'device_limit_bytes': whole(0),
    },
    'batch_size': whole(1, 2**20),
    'num_steps': whole(0, 2**31 - 1),
    'steps_per_call': whole(0, 10_000),
    'log_every': whole(1),
    'sample_every': whole(0),
    'checkpoint_every': whole(1),
    'keep_checkpoints': whole(1),
    'profile': FLAG,
    'dtype': Choice(('float32', 'bfloat16')),
    'lowering': Choice(tuple(lowering.LOWERINGS)),
    'latent_dim': whole(1, 2**14),
    'update': Choice(('alternating', 'simultaneous')),
    'fresh_latents': FLAG,
    'generator': LAYERS
    | {
        'base_size': whole(1, 1024),
        'base_features': whole(1, 2**14),
        'stem_features': Each(whole(1, 2**14)),
        'stem_norm': FLAG,
        'activation': Choice(dcgan.ACTIVATIONS),
    },
    'discriminator': LAYERS | {'dropout_rate': SHARE},
    'loss': {'name': Choice(tuple(LOSSES))},
    'optimizer': {'generator': OPTIMIZER, 'discriminator': OPTIMIZER},
    'ema': {
        'halflife_images': Number(0),
        'rampup_ratio': Number(0),
        'standing_batches': whole(1),
    },
    'evaluation': {
        'every': whole(0),
        'num_samples': whole(2, 1_000_000),
        'extractor': Text(filled=True),
        'inception_weights': Text(),
        'metrics': Each(Choice(METRICS), least=1),
        'split': Text(filled=True),
        'num_real': whole(2, 1_000_000),
        'reference': Text(),
        'batch_size': whole(1, 4096),
    },
}

# Fields that a run may change when it goes on: they change how long, where and how often, not what.
CHANGEABLE = (
    'data_dir', 'data.placement', 'data.device_limit_bytes', 'num_steps', 'log_every',
    'sample_every', 'checkpoint_every', 'keep_checkpoints', 'profile',
    *(f'evaluation.{name}' for name in SCHEMA['evaluation']),
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
    for network, extra in (('generator', 1), ('discriminator', 0)):
        stages, strides = config[network].features, config[network].strides
        if len(strides) != len(stages) + extra:
            last = ' and one for the convolution to the image' if extra else ''
            raise UserError(
                f'config.{network}.strides={tuple(strides)} must have one stride for each of '
                f'features={tuple(stages)}{last}: {len(stages) + extra} in all'
            )


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

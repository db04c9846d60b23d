"""Validation of configs: fields, values, and combinations of values.

`configs/default.py` defines the fields with their types, ranges and default values.
"""

import difflib
import itertools
from typing import Any

from ml_collections import ConfigDict
from pydantic import ValidationError

from dcgan_jax import config_conflicts, gradient_penalties, losses
from dcgan_jax.config_types import CHANGEABLE, Group, with_tuples
from dcgan_jax.configs import default
from dcgan_jax.runtime.errors import ConfigError
from dcgan_jax.runtime.files import NOT_UNICODE


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Flatten nested dicts, e.g. {'a': {'b': 1}} to {'a.b': 1}."""
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
    for fields, message in config_conflicts.find(config):
        raise ConfigError(message, fields)


def add_missing_fields(config: ConfigDict) -> list[str]:
    """Add fields that are missing in a stored config, with their defaults.

    Args:
        config: A config that was stored before fields were added to `configs/default.py`; modified.

    Returns:
        The names of the added fields.
    """
    stored = flatten(config.to_dict())
    missing = {
        name: value
        for name, value in flatten(default.Config().model_dump()).items()
        if name not in stored
    }
    for name, value in missing.items():
        *groups, field = name.split('.')
        node = config
        for group in groups:
            if group not in node:
                node[group] = {}
            node = node[group]
        node[field] = value
    return list(missing)


def _field_of(error: dict[str, Any]) -> str:
    """Return the field name of a pydantic error."""
    # The index of an element may be followed by the type, which is not part of the name.
    return '.'.join(itertools.takewhile(lambda part: isinstance(part, str), error['loc']))


def _describe_error(error: dict[str, Any]) -> str:
    """Format a pydantic error."""
    name = _field_of(error)
    if error['type'] == 'extra_forbidden':
        close = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f'; did you mean config.{close[0]}?' if close else ''
        return f'config.{name} is not a field{hint}'
    index = ''.join(f'[{part}]' for part in error['loc'] if isinstance(part, int))
    message = error['msg'][0].lower() + error['msg'][1:]
    if error['type'] == 'predicate_failed':
        message = NOT_UNICODE
    return f'config.{name}{index}={error["input"]!r:.99}: {message}'


def _check_stages(network: str, layers: ConfigDict) -> None:
    """Raise an error if a field with one element per stage has the wrong number of elements."""
    extra = 1 if network == 'generator' else 0  # G's last convolution outputs the image.
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
            f'config.{network}.attention={tuple(layers.attention)} must contain indices of stages: '
            f'0 to {len(layers.features) - 1}',
            (f'{network}.attention',),
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
            'depends on the whole batch, unlike in the papers; to avoid that, use another norm'
        )
    if used and config.discriminator.minibatch_stddev:
        found.append(
            f'{used} with config.discriminator.minibatch_stddev: the penalized gradient of an '
            'image depends on the other images of its group; to avoid that, set one of them to 0'
        )
    bounded = config.discriminator.spectral_norm or config.penalty.wgan_gp or config.penalty.dragan
    if losses.LOSSES[config.loss.name].needs_lipschitz_bound and not bounded:
        found.append(
            f'config.loss.name={config.loss.name!r} needs a Lipschitz bound on D; set '
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


def differ_only_in_paths(old: ConfigDict, new: ConfigDict) -> bool:
    """Return whether only `init_from` or `distill.teacher` differ, which both configs set."""
    moved = new.copy_and_resolve_references().unlock()
    if old.init_from and new.init_from:
        moved.init_from = old.init_from
    if old.distill.teacher and new.distill.teacher:
        moved.distill.teacher = old.distill.teacher
    return bool(differences(old, new)) and not differences(old, moved)

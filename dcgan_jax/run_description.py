"""Description of a run: the content of `config.json` and of the metadata of each checkpoint."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax.config_types import Group, Side, Text, with_tuples


class _Description(Group):
    """Schema of `config.json`."""

    config: dict[str, Any]
    image_shape: tuple[Side, Side, Side]
    class_names: tuple[Text, ...]
    data: dict[str, int | str]
    teacher: Text


class Run(NamedTuple):
    """Description of a run, stored in `config.json`.

    Attributes:
        config: The run's `ConfigDict` (see `configs/default.py`).
        image_shape: Shape (H, W, C) of the training images.
        class_names: Names of the data set's classes by label; empty without labels.
        data: Identity of the data set, see `ImageSource.identity`.
        teacher: SHA-256 of the teacher, see `distillation.digest`; '' without distillation.
    """

    config: ConfigDict
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()
    data: Mapping[str, int | str] = {}
    teacher: str = ''

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set; 0 without labels."""
        return len(self.class_names)


def describe(run: Run) -> dict[str, Any]:
    """Return the content of `config.json`, JSON-serializable."""
    return {
        'config': run.config.to_dict(),
        'image_shape': run.image_shape,
        'class_names': run.class_names,
        'data': dict(run.data),
        'teacher': run.teacher,
    }


def parse(content: Any) -> Run:
    """Return the run that `describe` described; missing fields of its config have their defaults.

    Raises:
        ValueError, TypeError, AttributeError: If the description is invalid.
    """
    description = _Description.model_validate(with_tuples(content))
    config = ConfigDict(description.config)
    config_lib.add_missing_fields(config)
    config_lib.validate(config)
    return Run(config.lock(), **{name: getattr(description, name) for name in Run._fields[1:]})


def select_fields(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the description of the run in the metadata of a checkpoint."""
    return {name: metadata[name] for name in _Description.model_fields if name in metadata}


def differences(before: Run, after: Run) -> list[str]:
    """Return a line for each difference that prevents resuming run `before` as run `after`."""
    changed = config_lib.differences(before.config, after.config)
    if before.image_shape != after.image_shape:
        changed.append(f'image shape: {before.image_shape} -> {after.image_shape}')
    return changed

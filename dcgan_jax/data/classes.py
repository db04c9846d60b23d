"""Selection of classes by name or index."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

from ml_collections import ConfigDict

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import escape


def find_classes(
    setting: str, selected: Iterable[int | str], names: Sequence[str]
) -> tuple[int, ...]:
    """Return the indices of classes, in the order of `selected`.

    Args:
        setting: Name of the setting in error messages, e.g. '--classes'.
        selected: Integers are indices; strings are names or, if no class has that name, indices.
        names: Names of all classes.

    Raises:
        UserError: If a class is unknown.
    """
    names = [unicodedata.normalize('NFC', name) for name in names]
    return tuple(_find_class(setting, value, names) for value in selected)


def replace_class_names(config: ConfigDict, names: Sequence[str]) -> ConfigDict:
    """Return a copy of the config in which `data.classes` has indices instead of names.

    Args:
        config: The run's config; not modified.
        names: Names of all classes of the data set.

    Raises:
        UserError: If a class is unknown, or an index is also the name of another class.
    """
    selected = config.data.classes
    for value in selected:
        if isinstance(value, int) and str(value) in names and names.index(str(value)) != value:
            raise UserError(
                f'config.data.classes={tuple(selected)}: {value} is both a name and the index of '
                f"another class; use strings for names, e.g. ('{value}',)"
            )
    numbered = config.copy_and_resolve_references().unlock()
    numbered.data.classes = find_classes('config.data.classes', selected, names)
    return numbered


def describe(indices: Iterable[int], names: Sequence[str]) -> str:
    """Return the names and indices of classes, e.g. 'cat (3), dog (5)'."""
    return ', '.join(f'{escape(names[index])} ({index})' for index in indices)


def _find_class(setting: str, value: int | str, names: list[str]) -> int:
    text = unicodedata.normalize('NFC', str(value))
    if isinstance(value, str) and text in names:
        return names.index(text)
    if text in map(str, range(len(names))):
        return int(text)
    close = difflib.get_close_matches(text, names, n=1)
    hint = f'Did you mean {close[0]!r}? ' if close else ''
    if ',' in text:
        hint = f'Write several classes as {tuple(text.split(","))}. '
    raise UserError(
        f'{setting}: class {value!r} is unknown. {hint}The classes are '
        f'{describe(range(len(names)), names)}'
    )

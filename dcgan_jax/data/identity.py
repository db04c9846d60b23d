"""Comparison of a data set with the one that a run was trained on."""

from collections.abc import Mapping, Sequence

from absl import logging

from dcgan_jax.runtime.errors import UserError

NO_FILES = '-'  # In place of the hash of a class whose files do not exist (dangling links).


def check_classes(
    old_names: Sequence[str],
    new_names: Sequence[str],
    old: Mapping[str, int | str],
    new: Mapping[str, int | str],
) -> None:
    """Check that the classes have the names and, if they have folders, the images of the run.

    Args:
        old_names: Names of the classes by label when the run started.
        new_names: Names of the classes by label.
        old: Identity of the data set when the run started, see `ImageSource.identity`.
        new: Identity of the data set.

    Raises:
        UserError: If the names differ, or if the images of one class are now in the folder of
            another class.
    """
    if tuple(new_names) != tuple(old_names):
        raise UserError(
            f'the data set has the classes {", ".join(new_names) or "(none)"}, but the run was '
            f'trained on {", ".join(old_names) or "(none)"}: restore the classes, or train '
            'a new run in another --workdir'
        )
    if exchanged := find_exchanged(old_names, old, new):
        raise UserError(
            f'{exchanged}: restore the folders, or train a new run in another --workdir'
        )


def check_related(
    setting: str,
    names: Sequence[str],
    related: Mapping[str, int | str],
    data: Mapping[str, int | str],
) -> None:
    """Check that no class has the images of another class of a run that this run depends on.

    Args:
        setting: The setting that selects the other run, in error messages.
        names: Names of the classes by label, which are the same in both runs.
        related: Identity of the data set of the other run.
        data: Identity of the data set of this run.

    Raises:
        UserError: If a class folder contains the images of another class of the other run.
    """
    if exchanged := find_exchanged(names, related, data):
        raise UserError(f'{setting}: {exchanged}: restore the folders, or use another run')


def find_exchanged(
    names: Sequence[str], old: Mapping[str, int | str], new: Mapping[str, int | str]
) -> str:
    """Return a description of a class whose folder contains the images of another class of a run.

    The description is '' if there is no such class.

    Args:
        names: Names of the classes by label, which are the same in both data sets.
        old: Identity of the run's data set.
        new: Identity of the data set.
    """
    old_hashes, new_hashes = (str(data.get('contents', '')).split() for data in (old, new))
    for name, before, after in zip(names, old_hashes, new_hashes, strict=False):
        if after not in (before, NO_FILES) and after in old_hashes:
            return (
                f'the class folder {name} contains the images on which the run was trained as '
                f'{names[old_hashes.index(after)]}'
            )
    return ''


def warn_if_changed(old: Mapping[str, int | str], new: Mapping[str, int | str]) -> None:
    """Log a warning that lists the properties of the data set that have changed."""
    changed = [name for name in old | new if old.get(name) != new.get(name)]
    texts = [
        name if name == 'contents' else f'{name}: {old.get(name)} -> {new.get(name)}'
        for name in changed
    ]
    if texts:
        logging.warning('the data set has changed since the run started (%s)', '; '.join(texts))

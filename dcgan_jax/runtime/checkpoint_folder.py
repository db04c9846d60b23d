"""Steps in a folder of checkpoints, and their metadata; nothing here waits for other processes."""

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from dcgan_jax.runtime.checkpoint_errors import DamagedError, raise_damaged
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import absolute, raise_unreadable, read_bytes

_Read = TypeVar('_Read')

FOLDER = 'checkpoints'
BEST_FOLDER = 'best_checkpoint'
DAMAGED_FOLDER = 'damaged_checkpoints'
FOLDERS = FOLDER, BEST_FOLDER, DAMAGED_FOLDER
_METADATA = '_CHECKPOINT_METADATA'  # A file of Orbax in each complete checkpoint.
# Files and folders in a checkpoint; some of them may be missing if it is damaged.
_PARTS = {'state', 'checksums', 'metadata', _METADATA, 'commit_success.txt'}
_MAX_REPLACED = 20  # Maximum number of checkpoints that may be replaced while they are read.


def has_any(workdir: epath.PathLike) -> bool:
    """Return whether `workdir` contains a complete checkpoint, which may be damaged."""
    return has_checkpoint(epath.Path(workdir) / FOLDER)


def has_checkpoint(folder: epath.Path) -> bool:
    """Return whether a folder contains a complete checkpoint, which may be damaged."""
    names = (_names_in(folder / str(step)) for step in complete_steps(folder))
    return any(not _PARTS.isdisjoint(found) for found in names)


def is_step(name: str) -> bool:
    """Return whether a folder with this name may be a checkpoint; Orbax accepts more names."""
    return re.fullmatch('0|[1-9][0-9]*', name) is not None


def is_checkpoint(folder: epath.Path) -> bool:
    """Return whether a folder is a complete checkpoint, which may have any name."""
    try:
        return (folder / _METADATA).exists()
    except OSError:
        return False


def check_contents(workdir: epath.PathLike) -> None:
    """Raise `UserError` if a folder of checkpoints has `foreign_files`."""
    for name in FOLDERS:
        if found := foreign_files(epath.Path(workdir) / name):
            raise UserError(f'{found}: move them elsewhere')


def foreign_files(folder: epath.Path) -> str:
    """Describe a folder with the name of a step that contains files of other programs.

    These files would be deleted with the checkpoint. Hidden files are ignored, and so are empty
    folders: one may remain if a process is killed while it deletes a checkpoint.

    Args:
        folder: Folder of checkpoints.

    Returns:
        The description, or '' if there is no such folder.
    """
    for step in sorted(complete_steps(folder)):
        path = folder / str(step)
        found = _names_in(path)
        foreign = sorted(name for name in found - _PARTS if not name.startswith('.'))
        if foreign:
            names = ', '.join(foreign[:5])
            return f'{path} contains files that are not part of a checkpoint ({names})'
    return ''


def _names_in(folder: epath.Path) -> set[str]:
    """Return the names of the files and folders in a folder, which may have been deleted."""
    with raise_unreadable(folder), contextlib.suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir()}
    return set()


def complete_steps(folder: epath.Path) -> set[int]:
    """Return the steps of the complete checkpoints in a folder, by the names of their folders.

    The contents are not read. Other files and folders are ignored.
    """
    if not folder.is_dir():
        return set()
    with raise_unreadable(folder):
        names = {path.name for path in ocp.path.step.checkpoint_steps_paths(folder)}
    return {int(name) for name in names if is_step(name)}


def latest_step(workdir: epath.PathLike) -> int | None:
    """Return the step of the last checkpoint with readable metadata, or None if there is none.

    If no checkpoint has readable metadata, return the step of the last checkpoint. Arrays are not
    read.

    Raises:
        UserError: If all checkpoints are lost, or a training run replaced each of them while it was
            read.
    """

    def read_step(path: epath.Path) -> int:
        read_metadata(path)
        return int(path.name)

    step, damaged = read_latest(absolute(workdir) / FOLDER, read_step)
    if step is None and not damaged:
        check_not_lost(workdir, FOLDER)
    return max(damaged, default=None) if step is None else step


def latest_metadata(workdir: epath.PathLike, folder: str = FOLDER) -> dict[str, Any]:
    """Return the metadata of the last checkpoint that has readable metadata, or {}.

    Args:
        workdir: Folder of the run.
        folder: `FOLDER` or `BEST_FOLDER`.

    Raises:
        UserError: If a training run replaced each checkpoint while it was read.
    """
    # The file is read without Orbax, which would wait for all processes.
    metadata, _ = read_latest(absolute(workdir) / folder, read_metadata)
    return metadata or {}


def read_metadata(path: epath.Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint; raise `DamagedError` if it cannot be read."""
    with raise_damaged(path):
        metadata = json.loads(read_bytes(path / 'metadata' / 'metadata').decode())
    if not isinstance(metadata, dict):
        raise DamagedError(f'the metadata of {path} is damaged ({metadata!r:.99})')
    return metadata


def read_latest(
    folder: epath.Path,
    read: Callable[[epath.Path], _Read],
    agree: Callable[[int], int] = lambda value: value,
) -> tuple[_Read | None, list[int]]:
    """Read the last checkpoint that is intact.

    A training run may delete a checkpoint while this function reads it, once a later one is saved.
    This is not damage: the steps are listed again, and the later checkpoint is read.

    Args:
        folder: Folder of the checkpoints.
        read: Function that reads the checkpoint at a path and raises `DamagedError` on failure.
        agree: Function that returns the same number in all processes that read the checkpoint.

    Returns:
        The value of `read`, or None if no checkpoint is intact, and the steps of damaged ones.

    Raises:
        UserError: If checkpoints were replaced while they were read, and none could be read.
    """
    damaged: list[int] = []
    replaced: list[int] = []

    def last() -> int:
        return agree(max(complete_steps(folder).difference(damaged, replaced), default=-1))

    while len(replaced) < _MAX_REPLACED and (step := last()) >= 0:
        try:
            return read(folder / str(step)), damaged
        except DamagedError as error:
            if last() != step:
                replaced.append(step)
            else:
                logging.warning('%s; it is ignored', error)
                damaged.append(step)
    if replaced:
        raise UserError(
            f'the checkpoints in {folder} were replaced by a training run while they were read: '
            'try again'
        )
    return None, damaged


def marker(workdir: epath.PathLike, folder: str) -> epath.Path:
    """Return the path of a file that exists if `folder` has ever had a complete checkpoint.

    It is not hidden, so that `cp RUN/* COPY/` copies it.
    """
    return absolute(workdir) / f'has_{folder}'


def check_not_lost(workdir: epath.PathLike, folder: str) -> None:
    """Raise `UserError` if `folder`, which has no checkpoints, has ever had one."""
    if marker(workdir, folder).exists():
        raise UserError(
            f'{absolute(workdir) / folder} contains no checkpoints, although the run had saved '
            f'some: restore one from a backup, or {remedy(folder)}'
        )


def remedy(folder: str) -> str:
    """Return the advice for lost or damaged checkpoints in `folder`."""
    if folder == BEST_FOLDER:
        return 'use --checkpoint=latest'
    return 'start a new run in another --workdir'

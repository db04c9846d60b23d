"""Folder of a run (workdir) and its description `config.json`."""

import contextlib
import errno
import functools
import json
import os
from collections.abc import Mapping
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict
from pydantic import ValidationError

from dcgan_jax import config as config_lib
from dcgan_jax import run_description
from dcgan_jax.data import identity
from dcgan_jax.run_description import Run
from dcgan_jax.runtime import checkpoint, checkpoint_folder, nonfinite, workdir_guard
from dcgan_jax.runtime.checkpoint_errors import DamagedError
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import (
    absolute,
    in_bucket,
    raise_unreadable,
    read_bytes,
    resolve_path,
    write_json,
)

CONFIG_FILE = 'config.json'
SAMPLES_FOLDER = 'samples'
EVALUATIONS_FOLDER = 'evaluation'
TEACHER_FILE = 'teacher.safetensors'
_FILES = (CONFIG_FILE, TEACHER_FILE, workdir_guard.LOCK_FILE, nonfinite.FILE)
FOLDERS = (*checkpoint_folder.FOLDERS, SAMPLES_FOLDER, EVALUATIONS_FOLDER)


def folder(path: epath.PathLike, flag: str = '--workdir') -> epath.Path:
    """Return the path of a folder given by the user, with `~` expanded.

    Args:
        path: Path of an existing or new folder.
        flag: Name of the flag in error messages.

    Raises:
        UserError: If the path is empty or cannot be reached, or permission to read it is missing.
    """
    resolved, parts = resolve_path(path, flag), ()
    if not os.fspath(path):
        raise UserError(f'{flag} is empty: pass the path of a folder')
    if not in_bucket(resolved):
        _check_access(resolved, flag)
        parts = absolute(resolved).parts
    if any('\\' in part or part.endswith(':') for part in parts):
        raise UserError(
            f'{flag}={resolved}: checkpoints cannot be written below a folder whose name has a '
            'backslash or ends in a colon: use another folder'
        )
    return resolved


def _check_access(path: epath.Path, flag: str) -> None:
    """Raise `UserError` if permission to read a folder is missing; the folder need not exist."""
    try:
        with raise_unreadable(f'{flag}={path}'):
            os.stat(path / CONFIG_FILE)
    except OSError:  # It does not exist, or is not a folder.
        return


def check_outside_checkpoints(path: epath.Path, flag: str) -> None:
    """Raise `UserError` if a path is inside a checkpoint folder, where it might be deleted.

    A checkpoint is also recognized if it or its folder is mounted or linked under another name.

    Args:
        path: Path of the folder.
        flag: Name of the flag in error messages.
    """
    path = absolute(path)
    real = path if in_bucket(path) else epath.Path(os.path.realpath(path))
    for parent in (path, *path.parents, real, *real.parents):
        is_named = parent.name in checkpoint_folder.FOLDERS and _is_run(parent.parent)
        is_step = checkpoint_folder.is_step(parent.name) and _has_checkpoint(parent.parent)
        if is_named or is_step or checkpoint_folder.is_checkpoint(parent):
            raise UserError(
                f'{flag}={path} is inside the checkpoint folder {parent}, whose contents may be '
                'deleted: use another folder'
            )


def _is_run(folder: epath.Path) -> bool:
    """Return whether a folder has a checkpoint, or the `config.json` of a run; False if unreadable.

    Other programs have a `config.json` and a folder `checkpoints`, too.
    """
    try:
        if checkpoint_folder.has_any(folder):
            return True
        run_description.parse(json.loads(read_bytes(folder / CONFIG_FILE).decode()))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return False
    return True


def _has_checkpoint(folder: epath.Path) -> bool:
    """Return whether a folder contains a checkpoint; False if it cannot be read."""
    try:
        return checkpoint_folder.has_checkpoint(folder)
    except (OSError, UserError):
        return False


def check_writable(
    workdir: epath.PathLike, flag: str = '--workdir', remedy: str = 'use another folder'
) -> epath.Path:
    """Check that a folder can be created and written to, without leaving any files.

    Args:
        workdir: Path of the folder, in which `~` is expanded.
        flag: Name of the flag in error messages.
        remedy: What to do, for the error message.

    Returns:
        The path of the folder.

    Raises:
        UserError: If `workdir` is a file, or cannot be created or written to.
        OSError: If the disk is full.
    """
    workdir = folder(workdir, flag)
    probe = workdir / f'.write_test_{os.urandom(8).hex()}'
    # Object stores have no folders, and write access does not imply permission to list a bucket.
    above = () if in_bucket(workdir) else (workdir, *workdir.parents)
    missing = [path for path in above if not path.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(4096))  # An empty file can be written to a full disk.
        probe.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f'{flag}={workdir} is not writable ({error.strerror or error}): {remedy}'
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        for path in missing:
            with contextlib.suppress(OSError):  # Not created, or in use by another process.
                path.rmdir()
    return workdir


def exists(workdir: epath.Path) -> bool:
    """Return whether `workdir` contains a run."""
    return (workdir / CONFIG_FILE).exists() or checkpoint_folder.has_any(workdir)


def check_free(workdir: epath.Path, run: Run) -> Run:
    """Check that `workdir` contains either no run or this run, without writing anything.

    Args:
        workdir: Folder of the run.
        run: The run to start or resume.

    Returns:
        The run; if it is resumed, with the identity of the data set that it was started on.

    Raises:
        UserError: If `workdir` contains a run with a different config, or no run but files that a
            run would replace, if the path of a run's file is a folder or vice versa, if the best
            checkpoint belongs to another run, or if a folder among the checkpoints is not one.
    """
    for name in FOLDERS + _FILES:
        path = workdir / name
        # epath.Path.is_file is also true for pipes.
        is_valid = os.path.isdir(path) if name in FOLDERS else os.path.isfile(path)
        if os.path.lexists(path) and not is_valid:
            kind = 'folder' if name in FOLDERS else 'file'
            raise UserError(f'{path} is not a {kind} (or is a dangling link): move it elsewhere')
    if not exists(workdir):
        names = [name for name in FOLDERS if (workdir / name).exists()]
        existing = [name for name in names if any((workdir / name).iterdir())]
        files = [nonfinite.FILE, TEACHER_FILE] if run.config.distill.teacher else [nonfinite.FILE]
        existing += [name for name in files if (workdir / name).exists()]
        if not existing:
            return run
        raise UserError(
            f'{workdir} contains no run, but files in the place of its results '
            f'({", ".join(existing)}): move them elsewhere, or use another --workdir'
        )
    checkpoint_folder.check_contents(workdir)
    before = read(workdir)
    if changed := run_description.differences(before, run):
        is_moved = config_lib.differ_only_in_paths(before.config, run.config)
        value = 'the original path, even if it no longer exists' if is_moved else 'its config'
        raise UserError(
            f'{workdir} contains a run with a different config ({"; ".join(changed)}): '
            f'use another --workdir; to resume the run, pass {value}'
        )
    # Results of the resumed run are compared with that of the best checkpoint.
    _check_last_checkpoint(workdir, before, checkpoint_folder.BEST_FOLDER)
    check_data(before, run.class_names, run.data)
    # An unconditional run may be resumed with other classes; it keeps its description.
    return run._replace(data=before.data, class_names=before.class_names)


def check_data(run: Run, class_names: tuple[str, ...], data: Mapping[str, int | str]) -> None:
    """Compare a data set with the one that the run was trained on; log a warning if they differ.

    Args:
        run: The run.
        class_names: Names of the data set's classes by label.
        data: Identity of the data set, see `ImageSource.identity`.

    Raises:
        UserError: If the run uses classes and they have changed, see `identity.check_classes`.
    """
    if run.config.conditional or run.config.data.classes:
        identity.check_classes(run.class_names, class_names, run.data, data)
    identity.warn_if_changed(run.data, data)


def write(workdir: epath.Path, run: Run) -> None:
    """Write `config.json`.

    This must be called within `workdir_guard.lock` and after the state is restored, so that a
    rejected attempt to resume does not change the file.
    """
    write_json(workdir / CONFIG_FILE, run_description.describe(run))


def read(workdir: epath.PathLike) -> Run:
    """Read the description of the run in `workdir`, from `config.json` or the last checkpoint.

    Raises:
        UserError: If there is no run, or its description is damaged, was written by another
            version, or differs from the description in the last checkpoint.
    """
    path = epath.Path(workdir) / CONFIG_FILE
    stored = None if path.exists() else _from_checkpoint(workdir)
    try:
        content = json.loads(read_bytes(path).decode()) if stored is None else stored
        run = run_description.parse(content)
    except PermissionError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): make it readable') from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{path} is damaged or was written by another version ({_reason(error)}): '
            'restore it, delete it if the run has a checkpoint, or use another --workdir'
        ) from error
    if missing := config_lib.add_missing_fields(ConfigDict(content['config'])):
        _warn_of_missing_fields(str(workdir), ', '.join(missing))
    if stored is None:
        _check_last_checkpoint(workdir, run)
    return run


@functools.cache  # A task may read the description several times.
def _warn_of_missing_fields(workdir: str, names: str) -> None:
    logging.warning(
        '%s: the run was trained before these fields were added; their defaults are used: %s',
        workdir, names,
    )  # fmt: skip


def restore(
    workdir: epath.PathLike, run: Run, abstract_state: Any, folder: str = checkpoint_folder.FOLDER
) -> tuple[Any | None, list[int]]:
    """Restore the last intact checkpoint of a run after checking that it belongs to the run.

    Args:
        workdir: Folder of the run.
        run: Description of the run.
        abstract_state: See `checkpoint.restore_latest`.
        folder: Name of the folder of the checkpoints in `workdir`.

    Returns:
        See `checkpoint.restore_latest`.

    Raises:
        UserError: If the checkpoint belongs to another run; also see `checkpoint.restore_latest`.
    """

    def check(path: epath.Path) -> None:
        with contextlib.suppress(DamagedError):  # Only the arrays are needed.
            _check_checkpoint(run, path)

    return checkpoint.restore_latest(workdir, abstract_state, folder, check)


def _check_last_checkpoint(
    workdir: epath.PathLike, run: Run, folder: str = checkpoint_folder.FOLDER
) -> None:
    """Raise `UserError` if the last checkpoint with readable metadata belongs to another run."""
    checkpoint_folder.read_latest(
        absolute(workdir) / folder, functools.partial(_check_checkpoint, run)
    )


def _check_checkpoint(run: Run, path: epath.Path) -> None:
    """Raise `UserError` if the checkpoint at a path belongs to another run.

    Raises:
        DamagedError: If the metadata of the checkpoint cannot be read.
    """
    metadata = checkpoint_folder.read_metadata(path)
    try:
        saved = run_description.parse(run_description.select_fields(metadata))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return  # The metadata has no checksum.
    changed = run_description.differences(saved, run)
    if saved.class_names != run.class_names:
        changed.append(f'classes: {", ".join(saved.class_names)} -> {", ".join(run.class_names)}')
    for field in ('data', 'teacher'):
        before, after = getattr(saved, field), getattr(run, field)
        if before != after:
            changed.append(f'{field}: {before} -> {after}')
    if changed:
        raise UserError(
            f'the description of the run differs from that in the checkpoint {path} '
            f'({"; ".join(changed)}): if the checkpoint belongs to another run, move it elsewhere; '
            f'otherwise restore {path.parents[1] / CONFIG_FILE}, or delete this file to use the '
            'description in the last checkpoint'
        )


def _reason(error: Exception) -> str:
    """Return the message of an error in one line."""
    if not isinstance(error, ValidationError):
        return ' '.join(str(error).split())
    first = error.errors()[0]
    return f'{".".join(map(str, first["loc"])) or "content"}: {first["msg"]}'


def _from_checkpoint(workdir: epath.PathLike) -> dict[str, Any]:
    """Return the description stored in the last checkpoint."""
    metadata = checkpoint_folder.latest_metadata(workdir)
    if not metadata:
        raise UserError(
            f'{workdir} contains no run (no {CONFIG_FILE} and no checkpoint): use the --workdir of '
            'a training run'
        )
    logging.warning(
        '%s has no %s: using the description in the last checkpoint', workdir, CONFIG_FILE
    )
    return run_description.select_fields(metadata)

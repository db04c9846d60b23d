"""A run's folder: `config.json` says what runs there; see also `checkpoint` and `writers`."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax.config_types import Group, Side, Text
from dcgan_jax.runtime import checkpoint, nonfinite
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import in_bucket, resolve_path, write_atomic

CONFIG_FILE = 'config.json'
LOCK_FILE = '.lock'
SAMPLES_FOLDER = 'samples'
EVALUATIONS_FOLDER = 'evaluation'
_FILES = (CONFIG_FILE, LOCK_FILE, nonfinite.FILE)
_FOLDERS = (
    checkpoint.FOLDER, checkpoint.BEST_FOLDER, checkpoint.DAMAGED_FOLDER, SAMPLES_FOLDER,
    EVALUATIONS_FOLDER,
)  # fmt: skip


class _Description(Group):
    """The content of `config.json`."""

    config: dict[str, Any]
    image_shape: tuple[Side, Side, Side]
    class_names: tuple[Text, ...]


class Run(NamedTuple):
    """What `config.json` holds.

    Attributes:
        config: of the run.
        image_shape: (H, W, C) of its images.
        class_names: of its data set, by label; empty without labels.
    """

    config: ConfigDict
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Of the data set; 0 without labels."""
        return len(self.class_names)


def folder(path: epath.PathLike, flag: str = '--workdir') -> epath.Path:
    """The path of a folder that a flag names, `~` being the user's.

    Raises:
        UserError: it is empty, or can't be reached.
    """
    if not os.fspath(path):
        raise UserError(f'{flag} is empty: name a folder')
    return resolve_path(path, flag)


def check_writable(workdir: epath.PathLike, flag: str = '--workdir') -> epath.Path:
    """Tries to make `workdir` and to write in it, and leaves nothing of that behind.

    Args:
        workdir: a folder; `~` is the user's.
        flag: its name in messages.

    Returns:
        The folder's path.

    Raises:
        UserError: it's a file, or can't be made or written.
    """
    workdir = folder(workdir, flag)
    probe = workdir / f'.write_test_{os.getpid()}'
    # Buckets have no folders, and may not be asked for by those who may write in them.
    above = () if in_bucket(workdir) else (workdir, *workdir.parents)
    missing = [path for path in above if not path.exists()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b'')
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'{flag}={workdir} is not writable ({error.strerror or error}): choose another'
        ) from error
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # Not made, or another's by now.
                path.rmdir()
    return workdir


def check_free(workdir: epath.Path, run: Run) -> None:
    """Finds that `workdir` holds no run, or this one, and writes nothing.

    Raises:
        UserError: another run's config is there, or something else where a run's files go; it stays
            as it was.
    """
    for name in _FOLDERS + _FILES:
        path = workdir / name
        # Not by epath, to which a pipe is a file.
        there = os.path.isdir(path) if name in _FOLDERS else os.path.isfile(path)
        if os.path.lexists(path) and not there:
            kind = 'folder' if name in _FOLDERS else 'file'
            raise UserError(f'{path} is no {kind}, or leads nowhere: mend that, or move it away')
    if (workdir / CONFIG_FILE).exists():
        before = read(workdir)
        changed = config_lib.differences(before.config, run.config)
        if before.image_shape != run.image_shape:
            changed.append(f'image shape: {before.image_shape} -> {run.image_shape}')
        if changed:
            raise UserError(
                f'{workdir} holds a run of another config ({"; ".join(changed)}): '
                'choose another --workdir, or give that config to go on with its run'
            )
    elif (workdir / checkpoint.FOLDER).exists():
        raise UserError(
            f'{workdir} holds checkpoints but no {CONFIG_FILE}: choose another --workdir'
        )


def enter(workdir: epath.Path, run: Run) -> None:
    """Claims `workdir` for `run`, within `lock`; raises what `check_free` does."""
    check_free(workdir, run)
    write_atomic(workdir / CONFIG_FILE, json.dumps(describe(run), indent=2).encode())


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
    """Keeps other processes from training in `workdir` within the block; the end of one counts.

    Buckets (`gs://`), and file systems without locks, can't tell: there it is up to the user.

    Raises:
        UserError: another process trains there.
    """
    if in_bucket(workdir):
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / LOCK_FILE, 'ab') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{workdir} is in use by another process: wait for its end, stop it, or choose '
                'another --workdir'
            ) from None
        except OSError as error:
            logging.warning('%s can not be locked (%s): start no other run there', workdir, error)
        yield


def describe(run: Run) -> dict[str, Any]:
    """The run as JSON has it."""
    return {
        'config': run.config.to_dict(),
        'image_shape': run.image_shape,
        'class_names': run.class_names,
    }


def read(workdir: epath.PathLike) -> Run:
    """Return the run that `config.json` describes.

    Raises:
        UserError: The file is missing or damaged, or has other fields than this version.
    """
    path = epath.Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f'{workdir} holds no run (no {CONFIG_FILE}): give the --workdir of a training run'
        )
    try:
        content = config_lib.with_tuples(json.loads(path.read_text()))
        description = _Description.model_validate(content)
        config = ConfigDict(description.config)
        config_lib.validate(config)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{path} is damaged, or of another version ({error}): '
            'restore it or choose another --workdir'
        ) from error
    return Run(config.lock(), description.image_shape, description.class_names)

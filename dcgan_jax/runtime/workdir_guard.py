"""Protection of a workdir against other processes during training."""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator

from absl import logging
from etils import epath

from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.runtime.files import in_bucket

try:
    import fcntl
except ImportError as error:
    raise UserError('Windows is not supported: use Linux, macOS or WSL 2') from error

LOCK_FILE = '.lock'


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[Callable[[], None]]:
    """Return a context that locks `workdir`; the lock is released when the process ends.

    Object stores (`gs://`) and file systems without locks are not locked.

    Yields:
        The `presence_check` of the locked folder.

    Raises:
        UserError: If another process has locked `workdir`.
    """
    if in_bucket(workdir):
        yield presence_check(workdir)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    check = presence_check(workdir)
    with open(workdir / LOCK_FILE, 'ab') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{workdir} is in use by another process: wait until it ends, stop it, or use '
                'another --workdir'
            ) from None
        except OSError as error:
            logging.warning('%s cannot be locked (%s): start no other run in it', workdir, error)
        check()  # The lock file is in the folder that is checked.
        yield check


def presence_check(workdir: epath.Path) -> Callable[[], None]:
    """Return a function that raises `TrainingError` if `workdir` has been removed or replaced.

    The folder is held open until the function is deleted: otherwise a new folder could get the same
    inode number, and file systems such as sshfs could give the same folder another one.

    Object stores (`gs://`) are not checked.
    """
    if in_bucket(workdir):
        return lambda: None
    before = _status(workdir)

    def check() -> None:
        now = _status(workdir)
        if before is None or now is None or not os.path.samestat(now, before):
            raise TrainingError(
                f'{workdir} was removed, renamed or replaced while it was in use: stopped; restore '
                'it or pass its new path, then rerun the command'
            )

    with contextlib.suppress(OSError):
        weakref.finalize(check, os.close, os.open(workdir, os.O_RDONLY))
    return check


def _status(path: epath.Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None

"""Exit codes of the command line.

0: success. 1: an error. 2: a user error (`UserError`), reported in one line on stderr. 129, 130 and
143: stopped by SIGHUP, SIGINT and SIGTERM.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from dcgan_jax.runtime.errors import StoppedError, TrainingError, UserError


def exit_with_error(error: object, code: int) -> NoReturn:
    """Print the error as one line on stderr and end the process."""
    _print_error(error)
    sys.exit(code)


def _print_error(error: object) -> None:
    # A single write, so that lines of other threads are not mixed with this one.
    sys.stderr.write(f'error: {" ".join(str(error).split())}\n')


def end_help() -> NoReturn:
    """End the process with exit code 0, even if stdout is closed (`--help | head -1`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


@contextlib.contextmanager
def handle_errors() -> Iterator[None]:
    """Return a context that ends the process with the exit code of the exception raised in it."""
    try:
        yield
    except UserError as error:
        exit_with_error(error, 2)
    except TrainingError as error:
        _print_error(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # Python would wait for Orbax's threads, which may wait for a failed save.
    except OSError as error:
        if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
            exit_with_error(f'{error}: change its permissions, or move it elsewhere', 2)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        exit_with_error(f'{error}: free some space, then rerun the same command to resume', 1)
    except RuntimeError as error:  # A base class of JAX's error; JAX is not imported for --help.
        if not str(error).startswith('RESOURCE_EXHAUSTED'):
            raise
        message = str(error).splitlines()[0].removesuffix('.')
        exit_with_error(f'{message}: use a smaller batch_size or width, or more devices', 1)
    except StoppedError as error:
        print(error, file=sys.stderr)
        sys.exit(128 + error.signal)
    except KeyboardInterrupt:
        print('SIGINT: stopped without saving', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)

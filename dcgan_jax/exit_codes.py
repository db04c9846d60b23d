"""Exit codes of the command line.

0: success. 1: an error. 2: a user error (`UserError`), reported in one line on stderr. 129, 130 and
143: stopped by SIGHUP, SIGINT and SIGTERM; the demo ends with 0.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from dcgan_jax.runtime.errors import StoppedError, TrainingError, UserError

# Raised if a stream cannot be written to, if it is closed, and in a signal handler if the signal
# interrupted a write to the same stream.
_STREAM_ERRORS = OSError, ValueError, RuntimeError


def exit_with_error(error: object, code: int) -> NoReturn:
    """Print the error as one line on stderr and end the process."""
    _print_error(error)
    sys.exit(code)


def _print_error(error: object) -> None:
    _print_line(f'error: {" ".join(str(error).split())}')


def _print_line(line: str) -> None:
    """Print a line on stderr; ignore errors, so that they do not change the exit code."""
    with contextlib.suppress(*_STREAM_ERRORS):
        # A single write is not interleaved with the output of other threads.
        sys.stderr.write(f'{line}\n')
        sys.stderr.flush()


def _exit_now(code: int) -> NoReturn:
    """End the process without waiting for Orbax's threads, which may wait for a failed save."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(*_STREAM_ERRORS):
            stream.flush()
    os._exit(code)


def open_closed_streams() -> None:
    """Open the null device for each standard stream that the parent process has closed.

    Otherwise, the next file that is opened would get the file descriptor of the closed stream, and
    libraries would write their messages to that file.
    """
    for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, errors='backslashreplace')  # noqa: SIM115 - kept open.
            os.set_inheritable(stream.fileno(), True)  # For child processes.
            setattr(sys, name, stream)


def exit_on_sigint() -> None:
    """Exit with a one-line message on Ctrl-C, until `raise_on_sigint` is called.

    While C extensions are imported, a `KeyboardInterrupt` would become an `ImportError`. A signal
    that is ignored, as in background jobs of a shell script, remains ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit_on_sigint)


def raise_on_sigint() -> None:
    """Restore the default handler of SIGINT, which raises `KeyboardInterrupt`."""
    if signal.getsignal(signal.SIGINT) is _exit_on_sigint:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit_on_sigint(*arguments: object) -> NoReturn:
    del arguments
    _print_line('SIGINT: stopped without saving')
    _exit_now(128 + signal.SIGINT)


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
        _exit_now(1)
    except OSError as error:
        if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError):
            exit_with_error(f'{error}: change its permissions, or move it elsewhere', 2)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        exit_with_error(f'{error}: free some space, then rerun the same command', 1)
    except RuntimeError as error:  # A base class of JAX's error; JAX is not imported for --help.
        if not str(error).startswith('RESOURCE_EXHAUSTED'):
            raise
        message = str(error).splitlines()[0].removesuffix('.')
        exit_with_error(f'{message}: use a smaller batch_size or width, or more devices', 1)
    except StoppedError as error:
        _print_line(str(error))
        sys.exit(128 + error.signal)
    except KeyboardInterrupt:
        _exit_on_sigint()

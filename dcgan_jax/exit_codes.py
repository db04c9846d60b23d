"""Exit codes of the command line.

0: success. 1: an error. 2: a user error (`UserError`), reported in one line on stderr. 130 and 143:
stopped by SIGINT and SIGTERM.
"""

import contextlib
import errno
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn

from dcgan_jax.runtime.errors import StoppedError, TrainingError, UserError


def exit_with_error(error: object, code: int) -> NoReturn:
    """Print the error as one line on stderr and end the process."""
    print('error:', *str(error).split(), file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def handle_errors() -> Iterator[None]:
    """Return a context that ends the process with the exit code of the exception raised in it."""
    try:
        yield
    except UserError as error:
        exit_with_error(error, 2)
    except TrainingError as error:
        # Otherwise, Python would print a warning at exit for each write that Orbax aborted.
        warnings.simplefilter('ignore', RuntimeWarning)
        exit_with_error(error, 1)
    except OSError as error:
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

"""Exit codes of the command line.

0: done. 2: a mistake of the user, with one line on stderr. 130 and 143: stopped by SIGINT or
SIGTERM. 1: anything else.
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
    """Prints the error in one line on stderr and ends the process."""
    print('error:', *str(error).split(), file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def handle_errors() -> Iterator[None]:
    """Ends the process with the exit code of the error that the block raises."""
    try:
        yield
    except UserError as error:
        exit_with_error(error, 2)
    except TrainingError as error:
        # At exit Python would add a line for each write that Orbax started and gave up.
        warnings.simplefilter('ignore', RuntimeWarning)
        exit_with_error(error, 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        exit_with_error(f'{error}: free some space, then resume with the same command', 1)
    except RuntimeError as error:  # JAX's own is one of them, and isn't imported for --help.
        if not str(error).startswith('RESOURCE_EXHAUSTED'):
            raise
        message = str(error).splitlines()[0].removesuffix('.')
        exit_with_error(f'{message}: use a smaller batch_size or width, or more devices', 1)
    except StoppedError as error:
        print(error, file=sys.stderr)
        sys.exit(128 + error.signal)
    except KeyboardInterrupt:
        print('SIGINT: stopped, and nothing more was saved', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)

"""Errors of reading checkpoints."""

import contextlib
from collections.abc import Iterator

from etils import epath

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import raise_unreadable


class DamagedError(Exception):
    """A checkpoint cannot be read or its checksums do not match."""


@contextlib.contextmanager
def raise_damaged(path: epath.Path) -> Iterator[None]:
    """Raise `DamagedError` for the various exceptions of Orbax and TensorStore.

    Raises:
        UserError: If access is denied, which does not mean that the checkpoint is damaged.
    """
    try:
        with raise_unreadable(path):
            yield
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), '')[:200]
        raise DamagedError(f'{path} is damaged ({type(error).__name__}: {reason})') from error

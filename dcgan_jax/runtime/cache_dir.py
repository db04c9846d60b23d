"""Where files are kept that can be had again."""

import os

from etils import epath


def folder() -> epath.Path:
    """$DCGAN_JAX_CACHE, else ~/.cache/dcgan_jax; it may not be there yet."""
    return epath.Path(os.environ.get('DCGAN_JAX_CACHE') or '~/.cache/dcgan_jax').expanduser()

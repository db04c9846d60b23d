"""Folder of cached files."""

import os

from etils import epath


def folder() -> epath.Path:
    """Return $DCGAN_JAX_CACHE or ~/.cache/dcgan_jax, which may not exist yet."""
    return epath.Path(os.environ.get('DCGAN_JAX_CACHE') or '~/.cache/dcgan_jax').expanduser()

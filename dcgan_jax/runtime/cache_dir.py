"""Folder of cached files."""

import os

from etils import epath


def folder() -> epath.Path:
    """Return $DCGAN_JAX_CACHE or ~/.cache/dcgan_jax, which may not exist yet."""
    return epath.Path(os.environ.get('DCGAN_JAX_CACHE') or '~/.cache/dcgan_jax').expanduser()


def enable_compilation_cache() -> None:
    """Cache compiled programs in JAX_COMPILATION_CACHE_DIR; '' disables the cache."""
    import jax

    path = os.environ.get('JAX_COMPILATION_CACHE_DIR', folder())
    jax.config.update('jax_compilation_cache_dir', str(path) or None)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)

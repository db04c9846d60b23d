"""Folders of cached files and data sets in the user's home."""

import atexit
import functools
import os
import shutil
import tempfile

from absl import logging
from etils import epath

from dcgan_jax.runtime import jax_settings


def folder() -> epath.Path:
    """Return $DCGAN_JAX_CACHE or ~/.cache/dcgan_jax, which may not exist yet."""
    path = os.environ.get('DCGAN_JAX_CACHE')
    return epath.Path(path).expanduser() if path else home_folder('.cache/dcgan_jax')


def home_folder(name: str) -> epath.Path:
    """Return a folder in the user's home, or in a new temporary folder if there is no home."""
    home = os.path.expanduser('~')
    return epath.Path(home if os.path.isabs(home) else _temporary_home()) / name


@functools.cache
def _temporary_home() -> str:
    home = tempfile.mkdtemp(prefix='dcgan_jax_')
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    logging.warning(
        'there is no home folder: caches and prepared data sets are in the temporary folder %s, '
        'which is deleted when the process ends normally; set HOME, or DCGAN_JAX_CACHE and '
        'TFDS_DATA_DIR, to keep them',
        home,
    )
    return home


def enable_compilation_cache() -> None:
    """Cache compiled programs in JAX_COMPILATION_CACHE_DIR; '' disables the cache."""
    jax = jax_settings.import_jax()
    path = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    path = folder() if path is None else path
    jax.config.update('jax_compilation_cache_dir', str(path) or None)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)

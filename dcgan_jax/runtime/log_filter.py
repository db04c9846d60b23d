"""Filter of log records."""

import logging
import sys
from pathlib import Path


def is_shown(record: logging.LogRecord) -> bool:
    """Return whether to show a record: of this project or CLU, or a warning of another library."""
    folders = Path(record.pathname).parts
    if record.exc_info and not {'clu', 'orbax', 'asyncio'}.isdisjoint(folders):
        return False  # Logged by a thread; the same error is raised again in the main thread.
    if 'clu' in folders:  # Steps/s and remaining time, which the progress bar of a terminal shows.
        record.msg = str(record.msg).removeprefix('Setting work unit notes: ')
        return not sys.stderr.isatty()
    if 'dcgan_jax' in folders:
        return True
    # TFDS warns if OpenCV is missing, but Pillow decodes the same pixels.
    quiet = logging.WARNING if 'tensorflow_datasets' in folders else logging.INFO
    return record.levelno > quiet

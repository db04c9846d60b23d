"""Which log records are shown."""

import logging
import sys
from pathlib import Path


def is_shown(record: logging.LogRecord) -> bool:
    """Whether a record is shown: those of this project and CLU, and warnings of other libraries."""
    folders = Path(record.pathname).parts
    if record.exc_info and not {'clu', 'orbax', 'asyncio'}.isdisjoint(folders):
        return False  # Of their threads: they raise it again here.
    if 'clu' in folders:  # Steps/s and time left, which a terminal sees in the progress bar.
        record.msg = str(record.msg).removeprefix('Setting work unit notes: ')
        return not sys.stderr.isatty()
    if 'dcgan_jax' in folders:
        return True
    # TFDS warns where OpenCV is missing: Pillow decodes the same pixels.
    quiet = logging.WARNING if 'tensorflow_datasets' in folders else logging.INFO
    return record.levelno > quiet

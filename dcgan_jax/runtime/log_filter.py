"""Filters of log records and of errors in threads."""

import logging
import sys
from pathlib import Path
from typing import Any


def install_excepthook() -> None:
    """Hide the errors that TensorStore's threads print after a failed read of a checkpoint."""
    original = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        if not (kind is RuntimeError and str(error) == 'Event loop is closed'):
            original(kind, error, traceback)

    sys.excepthook = hook


def is_shown(record: logging.LogRecord) -> bool:
    """Return whether to show a record.

    The records of this package and of CLU, and the warnings and errors of other libraries, are
    shown, with the exceptions below.
    """
    folders = Path(record.pathname).parts
    if record.exc_info and not {'clu', 'orbax', 'asyncio'}.isdisjoint(folders):
        return False  # Logged by a thread; the main thread raises the same error.
    if 'clu' in folders:  # Steps/s and remaining time, which a terminal's progress bar also shows.
        record.msg = str(record.msg).removeprefix('Setting work unit notes: ')
        return not sys.stderr.isatty()
    if 'dcgan_jax' in folders:
        return True
    # TFDS warns if OpenCV is missing, but Pillow decodes the same pixels. onnx_ir, which is used by
    # jax2onnx, warns of optional shapes that it does not write.
    is_quiet = not {'tensorflow_datasets', 'onnx_ir'}.isdisjoint(folders)
    return record.levelno > (logging.WARNING if is_quiet else logging.INFO)

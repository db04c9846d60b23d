"""Filters of log records and of unraisable exceptions."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

_RESEND_S = 0.05  # Delay in seconds before an ignored SIGINT is sent again.


def install_unraisablehook() -> None:
    """Install a `sys.unraisablehook` that hides secondary errors of Orbax and resends SIGINT.

    Python calls this hook for exceptions that it cannot raise, e.g. those of callbacks. When Orbax
    fails to read or write a checkpoint, the main thread raises the first error, and Orbax closes
    its event loop. Pending TensorStore operations and coroutines then fail as well; their errors
    are hidden. A `KeyboardInterrupt` that Python ignored is sent again as SIGINT.
    """
    original = sys.unraisablehook

    def hook(unraisable: 'sys.UnraisableHookArgs') -> None:
        error = unraisable.exc_value
        if isinstance(error, KeyboardInterrupt):  # Raised in JAX's GC callback.
            timer = threading.Timer(_RESEND_S, os.kill, (os.getpid(), signal.SIGINT))
            timer.daemon = True
            timer.start()
            return
        is_closed_loop = isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'
        code = getattr(unraisable.object, 'cr_code', None)
        is_orbax = code is not None and 'orbax' in Path(code.co_filename).parts
        if not (is_closed_loop or is_orbax):
            original(unraisable)

    sys.unraisablehook = hook


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
    # jax2onnx, warns of optional shapes that it does not write. Orbax warns of each missing file
    # before it raises an error.
    is_quiet = not {'tensorflow_datasets', 'onnx_ir', 'orbax'}.isdisjoint(folders)
    return record.levelno > (logging.WARNING if is_quiet else logging.INFO)

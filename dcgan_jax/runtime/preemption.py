"""SIGTERM and SIGINT end a run after the call under way, with a checkpoint.

Preemptible machines send SIGTERM some seconds before they stop; SIGINT is Ctrl-C, and a second one
ends the process at once. Of several processes each takes either for a SIGTERM to all.
"""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_calls = itertools.count(1)  # JAX's processes agree on a number that all of them come to.


class Preempted(BaseException):  # Decoders catch every Exception.
    """A signal came within `PreemptionWatcher.interruptible`."""


class PreemptionWatcher:
    """Whether, and by which signal, the run was asked to stop.

    Attributes:
        signal: the first that came, or None.
    """

    def __init__(self):
        """Nothing was asked yet."""
        self.signal: signal.Signals | None = None
        self._interrupts = False

    def should_stop(self) -> bool:
        """Whether to stop now; all processes ask after each call, and have the same answer."""
        if jax.process_count() == 1:
            return self.signal is not None
        reached = multihost_utils.reached_preemption_sync_point(next(_calls))
        if reached and self.signal is None:
            self.signal = signal.SIGTERM
        return reached

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        del frame
        if self.signal is None:
            self.signal = signal.Signals(number)
            if self._interrupts:
                raise Preempted
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that may be given up, an evaluation say: one of one process ends at a signal.

        Raises:
            Preempted: a signal came in the block, or had come before.
        """
        self._interrupts = True
        try:
            if self.signal is not None:
                raise Preempted
            yield
        finally:
            self._interrupts = False


@contextlib.contextmanager
def watch() -> Iterator[PreemptionWatcher]:
    """Catches the signals in a block; outside of the main thread, which alone may, none come."""
    watcher = PreemptionWatcher()
    if threading.current_thread() is not threading.main_thread():
        yield watcher
        return
    if jax.process_count() > 1:  # JAX tells SIGTERM to all processes, and has its handler.
        handlers = {signal.SIGINT: _as_sigterm}
    else:
        handlers = dict.fromkeys(_SIGNALS, watcher.handle_signal)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield watcher
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_sigterm(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.kill(os.getpid(), signal.SIGTERM)

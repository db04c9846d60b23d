"""Graceful stop on a signal: a checkpoint is saved after the current call.

Preemptible machines send SIGTERM some seconds before they shut down. SIGINT is sent by Ctrl-C; a
second SIGINT ends the process immediately. SIGHUP is sent when the terminal is closed. With
several processes, a signal to one of them stops the whole run.
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

_sync_points = itertools.count(1)  # Their indices must be equal in all processes.


class Preempted(BaseException):  # Not an `Exception`, which handlers of decoding errors catch.
    """A signal was received within `PreemptionWatcher.interruptible`."""


class PreemptionWatcher:
    """Records the first signal that asks the run to stop.

    Attributes:
        signal: The signal, or None.
    """

    def __init__(self):
        """Initialize without a signal."""
        self.signal: signal.Signals | None = None
        self._interruptible = False

    def should_stop(self) -> bool:
        """Return whether to stop; must be called by all processes, which get the same answer."""
        if jax.process_count() == 1:
            return self.signal is not None
        reached = multihost_utils.reached_preemption_sync_point(next(_sync_points))
        if reached and self.signal is None:
            self.signal = signal.SIGTERM
        return reached

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """Record the first signal; raise `KeyboardInterrupt` at a further SIGINT."""
        del frame
        if self.signal is None:
            self.signal = signal.Signals(number)
            if self._interruptible:
                raise Preempted
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Return a context that a signal interrupts immediately, if there is only one process.

        Raises:
            Preempted: If a signal is received within the context or was received before.
        """
        self._interruptible = True
        try:
            if self.signal is not None:
                raise Preempted
            yield
        finally:
            self._interruptible = False


@contextlib.contextmanager
def watch() -> Iterator[PreemptionWatcher]:
    """Return a context that catches the signals; it has no effect outside of the main thread."""
    watcher = PreemptionWatcher()
    if threading.current_thread() is not threading.main_thread():
        yield watcher
        return
    if jax.process_count() > 1:  # JAX handles SIGTERM and notifies all processes.
        handlers = {signal.SIGINT: _as_sigterm, signal.SIGHUP: _as_sigterm}
    else:
        signals = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
        handlers = dict.fromkeys(signals, watcher.handle_signal)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # Set by `nohup`.
        del handlers[signal.SIGHUP]
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield watcher
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_sigterm(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.kill(os.getpid(), signal.SIGTERM)

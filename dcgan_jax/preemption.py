"""SIGTERM and SIGINT end a run after the call under way, with a checkpoint.

Preemptible machines send SIGTERM some seconds (30 on Cloud TPU VMs) before they stop; SIGINT is
Ctrl-C. A second SIGINT ends the process at once.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Request:
    """Whether, and by which signal, the run was asked to stop.

    Attributes:
        signal: the first that came, or None.
    """

    def __init__(self):
        """Nothing was asked yet."""
        self.signal: signal.Signals | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        del frame
        if self.signal is None:
            self.signal = signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


@contextlib.contextmanager
def watch() -> Iterator[Request]:
    """Catches the signals in a block; outside of the main thread, which alone may, none come."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What may end a program, and how `main.py` tells it."""

import signal


class UserError(ValueError):
    """A mistake that its user can mend: one line says what is wrong, where, and what to do.

    `main.py` prints it to stderr without a traceback and exits with code 2.
    """


class StoppedError(Exception):
    """A run that was asked to stop, and saved its state before it did.

    `main.py` prints it to stderr and exits with 128 plus the number of the signal: 143 for SIGTERM,
    130 for SIGINT.

    Attributes:
        signal: which asked.
    """

    def __init__(self, signal: signal.Signals, message: str):
        """By a signal."""
        super().__init__(message)
        self.signal = signal


class TrainingError(RuntimeError):
    """A run that can't go on (a non-finite loss, say): one line says where it stopped and why.

    `main.py` prints it to stderr without a traceback and exits with code 1.
    """


class NonFiniteError(TrainingError):
    """A loss, a gradient or a parameter was NaN or infinite: what a rollback may get past."""

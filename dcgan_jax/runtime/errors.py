"""Exceptions that end a program; `exit_codes` maps them to exit codes."""

import signal


class UserError(ValueError):
    """An error caused by the user; the message is one line with the problem and the remedy.

    `main.py` prints it to stderr without a traceback and exits with code 2.
    """


class ConfigError(UserError):
    """An invalid config.

    Attributes:
        fields: Names of the invalid fields, e.g. 'optimizer.generator.b1'.
    """

    def __init__(self, message: str, fields: tuple[str, ...]):
        """Initialize the error with the names of the invalid fields."""
        super().__init__(message)
        self.fields = fields


class StoppedError(Exception):
    """A run was stopped by a signal after its state had been saved.

    `main.py` prints it to stderr and exits with 128 plus the number of the signal: 143 for SIGTERM,
    130 for SIGINT, 129 for SIGHUP.

    Attributes:
        signal: The signal.
    """

    def __init__(self, signal: signal.Signals, message: str):
        """Initialize the error with the signal."""
        super().__init__(message)
        self.signal = signal


class TrainingError(RuntimeError):
    """A run or a task cannot continue, for example because of a non-finite loss.

    `main.py` prints it to stderr without a traceback and exits with code 1.
    """


class NonFiniteError(TrainingError):
    """A loss, a gradient or a parameter is NaN or infinite; a rollback may recover."""

class UserError(ValueError):
    """A mistake that its user can mend: one line says what is wrong, where, and what to do.

    `main.py` prints it to stderr without a traceback and exits with code 2.
    """


class TrainingError(RuntimeError):
    """A run that can't go on (a non-finite loss, say): one line says where it stopped and why.

    `main.py` prints it to stderr without a traceback and exits with code 1.
    """

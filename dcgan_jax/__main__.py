"""The command line: `python -m dcgan_jax`, `python main.py`, and the console script `dcgan-jax`."""

from dcgan_jax import exit_codes
from dcgan_jax.runtime import log_filter


def run() -> None:
    """Run the command line; see `cli` for the flags and `exit_codes` for the exit codes."""
    exit_codes.open_closed_streams()
    exit_codes.end_at_sigint()
    log_filter.install_unraisablehook()
    with exit_codes.handle_errors():
        from dcgan_jax import cli  # Its imports take time, in which Ctrl-C may be pressed.

        cli.run()


if __name__ == '__main__':
    run()

"""The command line: `python -m dcgan_jax`, `python main.py`, and the console script `dcgan-jax`."""

from dcgan_jax import exit_codes
from dcgan_jax.runtime import log_filter


def run() -> None:
    """Run the command line; see `cli` for the flags and `exit_codes` for the exit codes."""
    exit_codes.open_closed_streams()
    exit_codes.exit_on_sigint()
    log_filter.install_unraisablehook()
    with exit_codes.handle_errors():
        # Imported here, so that Ctrl-C during the slow imports is handled.
        from dcgan_jax import cli

        cli.run()


if __name__ == '__main__':
    run()

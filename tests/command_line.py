"""Runs the command line of main.py in the current process, which is faster than a new process."""

import contextlib
import io
import sys
import types

import pytest
from absl.testing import flagsaver

from dcgan_jax import cli, exit_codes


def call_main(*flags):
    """Parse the flags and run the mode; return the exit code, stdout and stderr."""
    argv = ['main.py', *flags]
    out = io.TextIOWrapper(io.BytesIO(), 'utf-8', 'strict')
    errors = io.TextIOWrapper(io.BytesIO(), 'utf-8', 'backslashreplace')
    code = 0
    with (
        flagsaver.flagsaver(),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        patch.setattr(sys, 'argv', argv)
        try:
            with exit_codes.handle_errors():
                cli.parse(argv)
                cli.main([])
        except SystemExit as stop:
            code = stop.code
    for stream in (out, errors):
        stream.flush()
    return types.SimpleNamespace(
        returncode=code,
        stdout=out.buffer.getvalue().decode(),
        stderr=errors.buffer.getvalue().decode(),
    )

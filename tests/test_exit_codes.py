"""Exit codes and messages of errors."""

import sys
import types

import pytest

from dcgan_jax import exit_codes
from dcgan_jax.runtime import log_filter


@pytest.mark.parametrize('kind', [PermissionError, IsADirectoryError, NotADirectoryError])
def test_inaccessible_files_are_reported_in_one_line(kind, capsys):
    with pytest.raises(SystemExit) as end, exit_codes.handle_errors():
        raise kind(13, 'Permission denied', '/some/file')
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert '/some/file' in line


def test_unraisablehook_hides_only_further_errors_of_checkpoints(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda unraisable: seen.append(unraisable.exc_value))
    log_filter.install_unraisablehook()
    for error in (RuntimeError('Event loop is closed'), RuntimeError('other'), ValueError('x')):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error, object=None))
    for file in ('/packages/orbax/checkpoint/handler.py', '/packages/other.py'):
        coroutine = types.SimpleNamespace(cr_code=types.SimpleNamespace(co_filename=file))
        sys.unraisablehook(types.SimpleNamespace(exc_value=ValueError(file), object=coroutine))
    assert list(map(str, seen)) == ['other', 'x', '/packages/other.py']

"""Exit codes and messages of errors."""

import sys

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


def test_excepthook_hides_only_closed_event_loops(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, 'excepthook', lambda *arguments: seen.append(arguments[1]))
    log_filter.install_excepthook()
    for error in (RuntimeError('Event loop is closed'), RuntimeError('other'), ValueError('x')):
        sys.excepthook(type(error), error, None)
    assert list(map(str, seen)) == ['other', 'x']

"""Exit codes and messages of errors."""

import contextlib
import signal
import subprocess
import sys
import time
import types

import pytest

from dcgan_jax import exit_codes
from dcgan_jax.runtime import log_filter
from dcgan_jax.runtime.errors import StoppedError, UserError


@pytest.mark.parametrize('kind', [PermissionError, IsADirectoryError, NotADirectoryError])
def test_inaccessible_files_are_reported_in_one_line(kind, capsys):
    with pytest.raises(SystemExit) as end, exit_codes.handle_errors():
        raise kind(13, 'Permission denied', '/some/file')
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert '/some/file' in line


def test_unraisablehook_hides_only_errors_of_orbax(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda unraisable: seen.append(unraisable.exc_value))
    log_filter.install_unraisablehook()
    for error in (RuntimeError('Event loop is closed'), RuntimeError('other'), ValueError('x')):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error, object=None))
    for file in ('/packages/orbax/checkpoint/handler.py', '/packages/other.py'):
        coroutine = types.SimpleNamespace(cr_code=types.SimpleNamespace(co_filename=file))
        sys.unraisablehook(types.SimpleNamespace(exc_value=ValueError(file), object=coroutine))
    assert list(map(str, seen)) == ['other', 'x', '/packages/other.py']


@pytest.mark.usefixtures('default_signals')
def test_ignored_keyboard_interrupt_is_sent_again(monkeypatch):
    monkeypatch.setattr(sys, 'unraisablehook', None)
    log_filter.install_unraisablehook()
    ignored = types.SimpleNamespace(exc_value=KeyboardInterrupt(), object=None)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - raised while the process sleeps.
        sys.unraisablehook(ignored)
        time.sleep(30)


@pytest.mark.parametrize(
    ('error', 'code'), [(StoppedError(signal.SIGTERM, 'stopped'), 143), (UserError('error'), 2)]
)
def test_exit_code_does_not_depend_on_stderr(error, code, monkeypatch):
    with open('/dev/full', 'w', buffering=1) as full:  # Writes each line, as stderr does.
        monkeypatch.setattr(sys, 'stderr', full)
        with pytest.raises(SystemExit) as end, exit_codes.handle_errors():
            raise error
        monkeypatch.undo()
        with contextlib.suppress(OSError):  # Closing the file writes the buffered lines.
            full.close()
    assert end.value.code == code


# Runs main.py and sends SIGINT when a module is imported.
INTERRUPTED = """
import runpy, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == 'MODULE':
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:  # C extensions raise ImportError, too.
                raise ImportError(name)
sys.meta_path.insert(0, Finder)
sys.argv[0] = 'main.py'
runpy.run_path('main.py', run_name='__main__')
"""


@pytest.mark.usefixtures('default_signals')
@pytest.mark.parametrize('module', ['absl.flags', 'jaxlib', 'tensorstore'])
def test_ctrl_c_during_imports_ends_the_process_with_one_line(module, tmp_path):
    script = INTERRUPTED.replace('MODULE', module)
    flags = ['--mode=sample', '--num=1', f'--workdir={tmp_path}']
    done = subprocess.run(
        [sys.executable, '-c', script, *flags], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 130
    assert done.stderr == 'SIGINT: stopped without saving\n'


def test_closed_streams_are_opened():
    script = (
        'from dcgan_jax import exit_codes; exit_codes.open_closed_streams(); import os, sys; '
        'print(sys.stdin.fileno(), sys.stderr.fileno(), open(os.devnull).fileno())'
    )
    command = f'exec "{sys.executable}" -c "{script}" <&- 2>&-'
    done = subprocess.run(['bash', '-c', command], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == '0 2 3\n'

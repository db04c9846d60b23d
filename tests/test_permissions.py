"""Files and folders of a run without read or write permission."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from dcgan_jax import run_dir
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.outputs import output_folder

_NOBODY = 65534


@pytest.fixture
def run_copy(class_folder_run):
    """A copy of a run in a folder that all users can read."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = shutil.copytree(class_folder_run[1], Path(folder) / 'run')
        for path in (copy, *copy.rglob('*')):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield copy


@contextlib.contextmanager
def unprivileged():
    """Context in which file permissions also apply to root."""
    user = os.geteuid()
    os.seteuid(user or _NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    'name', ['config.json', '.', 'checkpoints', 'checkpoints/2/metadata/metadata']
)
def test_unreadable_run_is_not_reported_as_damaged_or_missing(run_copy, name):
    (run_copy / name).chmod(0)
    if name.startswith('checkpoints'):
        (run_copy / 'config.json').unlink()
    with unprivileged(), pytest.raises(UserError, match=r'cannot be read .*: make it readable'):
        run_dir.read(run_dir.folder(run_copy))
    (run_copy / name).chmod(0o755)


def test_error_for_a_read_only_run_recommends_out(run_copy):
    run_copy.chmod(0o555)
    config = run_dir.read(run_copy).config
    with unprivileged(), pytest.raises(UserError, match='set --out'):
        output_folder(TaskOptions(workdir=run_copy), 'explore', config, lambda: None)
    run_copy.chmod(0o755)

"""The installed package, in a folder that contains another package `configs`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import dcgan_jax
from dcgan_jax.tasks import sample
from dcgan_jax.tasks.options import TaskOptions
from tests.conftest import tiny_config

ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd, **environment):
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip


def test_installed_package_works_in_any_folder(tmp_path):
    source, site, elsewhere = (tmp_path / name for name in ('source', 'site', 'elsewhere'))
    skipped = shutil.ignore_patterns('.*', '__pycache__', 'build', '*.egg-info')
    shutil.copytree(ROOT, source, symlinks=True, ignore=skipped)
    pip = sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation'
    run(*pip, '--target', site, source, cwd=tmp_path)
    (elsewhere / 'configs').mkdir(parents=True)
    (elsewhere / 'configs' / '__init__.py').write_text('')
    script = 'import dcgan_jax; from dcgan_jax.configs import cifar10; print(dcgan_jax.__file__)'
    printed = run(sys.executable, '-c', script, cwd=elsewhere, PYTHONPATH=str(site))
    assert Path(printed.strip()).is_relative_to(site)
    usage = run(site / 'bin' / 'dcgan-jax', '--help', cwd=elsewhere, PYTHONPATH=str(site))
    assert '--workdir' in usage


def test_train_load_and_sample(data_dir, tmp_path):
    config = tiny_config(data_dir)
    config.num_steps = 2
    state = dcgan_jax.train(config, tmp_path / 'run')
    images = dcgan_jax.load(tmp_path / 'run').sample(5, seed=3)
    assert (images.shape, images.dtype) == ((5, 8, 8, 3), np.uint8)
    assert int(state.step) == int(dcgan_jax.load(tmp_path / 'run').state.step)
    sample.run(TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=5, seed=3))
    with np.load(tmp_path / 'out' / 'samples.npz') as arrays:
        np.testing.assert_array_equal(images, arrays['images'])

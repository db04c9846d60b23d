"""Runs on one device and on eight devices are equal."""

import concurrent.futures
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dcgan_jax.tasks.trained_run import restore
from tests.compare import assert_close_states
from tests.devices import CASES

ROOT = Path(__file__).resolve().parents[1]
COUNT = 8


def run(out, data_dir, case, count):
    env = os.environ | {
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={count}',
        'DCGAN_JAX_CACHE': str(out.with_suffix('.cache')),
    }
    command = [sys.executable, '-m', 'tests.devices', str(out), str(data_dir), case]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope='module')
def runs(tmp_path_factory, data_dir):
    """Function from a case to the folders of its runs on one device and on eight devices."""

    @functools.cache
    def runs(case):
        root = tmp_path_factory.mktemp(case)
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            return list(threads.map(lambda n: run(root / str(n), data_dir, case, n), (1, COUNT)))

    return runs


def losses(folder):
    events = EventAccumulator(str(folder)).Reload()
    names = ('generator/loss', 'discriminator/loss')
    return np.array([[event.value for event in events.Scalars(name)] for name in names])


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_eight_devices_train_the_same_state_as_one(runs, case):
    one, eight = runs(case)
    real = case.startswith('cifar10')
    assert losses(one).shape == (2, 20 if real else 4)
    # GANs amplify rounding errors in proportion to the learning rates.
    num_close = 4 if case == 'cifar10' else 20
    np.testing.assert_allclose(losses(eight)[:, :num_close], losses(one)[:, :num_close], rtol=1e-5)
    np.testing.assert_allclose(losses(eight), losses(one), rtol=1e-2 if case == 'cifar10' else 2e-3)
    if real:
        return
    # Both states are restored on the single device of this process.
    states = [restore(folder).state for folder in (eight, one)]
    assert_close_states(*states, rtol=1e-3, atol=1e-5)
    grids = []
    for folder in (one, eight):
        (path,) = (folder / 'samples').iterdir()
        with PIL.Image.open(path) as picture:
            grids.append(np.asarray(picture).astype(int))
    assert np.abs(grids[1] - grids[0]).max() <= 1


@pytest.mark.slow
def test_evaluation_does_not_depend_on_devices(runs):
    results = []
    for folder in runs('recipe'):
        (path,) = (folder / 'evaluation').iterdir()
        results.append(json.loads(path.read_text()))
    for name in ('frechet_distance', 'precision', 'recall', 'density', 'coverage'):
        assert results[1][name] == pytest.approx(results[0][name], rel=1e-3), name

"""Killed processes, full disks, wrong clocks, and memory of long runs."""

import contextlib
import itertools
import os
import random
import shutil
import subprocess
import time

import jax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dcgan_jax import sample_grids, training
from dcgan_jax.tasks.trained_run import restore
from tests.compare import assert_equal_states
from tests.conftest import slow
from tests.extractors import write_artifact
from tests.test_main import ROOT, TINY, checkpoints, command, run


def restored_state(workdir):
    return restore(workdir).state


@pytest.mark.slow
def test_run_killed_twenty_times_ends_in_the_same_state(tmp_path, data_dir):
    """Checkpoints are saved every 5 steps, so that many processes are killed during a save."""
    flags = [*TINY, '--config.num_steps=1000', '--config.checkpoint_every=5']
    environment = {**os.environ, 'TFDS_DATA_DIR': str(data_dir)}
    rng, killed = random.Random(0), tmp_path / 'killed'
    reached = []
    for _ in range(20):
        before = checkpoints(killed)[-1] if (killed / 'checkpoints').is_dir() else 0
        process = subprocess.Popen(
            command(*flags, f'--workdir={killed}'),
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            if (killed / 'checkpoints').is_dir() and max(checkpoints(killed), default=0) > before:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.wait()
        reached.append(checkpoints(killed)[-1])
    assert reached == sorted(reached)
    result = run(*flags, f'--workdir={killed}', TFDS_DATA_DIR=str(data_dir))
    assert result.returncode == 0, result.stderr
    assert not (killed / 'damaged_checkpoints').exists()
    whole = run(*flags, f'--workdir={tmp_path / "whole"}', TFDS_DATA_DIR=str(data_dir))
    assert whole.returncode == 0, whole.stderr
    assert_equal_states(restored_state(killed), restored_state(tmp_path / 'whole'))


@pytest.fixture
def small_disk(tmp_path):
    """File system of 1 MiB; mounting it needs root."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', str(folder)]
    if shutil.which('mount') is None or subprocess.run(mount, check=False).returncode:
        pytest.skip('no file system can be mounted here')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def fill(folder, free):
    """Fill the disk except for `free` bytes, rounded to a page; return the file."""
    filler = folder / 'filler'
    with filler.open('wb', buffering=0) as file, contextlib.suppress(OSError):
        while shutil.disk_usage(folder).free > free:
            file.write(bytes(4096))
    return filler


@pytest.mark.slow
def test_full_disk_stops_a_run_and_keeps_its_checkpoints(small_disk, data_dir):
    """The disk is full at the start, when a checkpoint is saved, or when events are written."""
    flags = [*TINY, f'--workdir={small_disk}', '--config.log_every=1', '--config.sample_every=0']
    environment = {'TFDS_DATA_DIR': str(data_dir)}
    first = run(*flags, '--config.num_steps=2', **environment)
    assert first.returncode == 0, first.stderr
    events = 'TensorBoard events cannot be written'
    for free, every, messages in [
        (0, 1, ['No space left']),
        # The writer of events may be the first to report that a checkpoint has filled the disk.
        (80_000, 1, ['a checkpoint cannot be written', events]),
        (20_000, 100_000, [events]),
    ]:
        filler = fill(small_disk, free)
        many = f'--config.checkpoint_every={every}', '--config.num_steps=20000'
        full = run(*flags, *many, **environment)
        assert full.returncode == 1, full.stderr
        assert full.stderr.splitlines()[-1].startswith('error: '), full.stderr
        assert any(message in full.stderr.splitlines()[-1] for message in messages)
        filler.unlink()
        last = checkpoints(small_disk)[-1]
        assert 2 <= last < 20000
        assert int(restored_state(small_disk).step) == last
    after = run(*flags, f'--config.num_steps={last + 4}', **environment)
    assert after.returncode == 0, after.stderr
    assert int(restored_state(small_disk).step) == last + 4


def test_backward_clock_does_not_change_training(config, tmp_path, finished, monkeypatch):
    """The clock goes back by half an hour at each reading; events are written nevertheless."""
    _, whole = finished
    now, readings = time.time(), itertools.count()
    monkeypatch.setattr(time, 'time', lambda: now - 1800 * next(readings))
    back = training.train_and_evaluate(config, tmp_path / 'back')
    assert next(readings) > 10
    assert_equal_states(back, whole)
    curves = EventAccumulator(str(tmp_path / 'back'))
    curves.Reload()
    assert [event.step for event in curves.Scalars('generator/loss')] == [2, 3, 4, 6]


@pytest.mark.slow
def test_resume_ignores_modification_times_in_the_future(config, tmp_path, finished):
    """This happens if the clock was corrected between two starts."""
    config.num_steps = 4
    training.train_and_evaluate(config, tmp_path / 'run')
    future = time.time() + 10 * 365 * 86400
    for path in (tmp_path / 'run').rglob('*'):
        os.utime(path, (future, future))
    config.num_steps = 6
    assert_equal_states(training.train_and_evaluate(config, tmp_path / 'run'), finished[1])


def resident_memory():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.parametrize('steps', [slow(300), slow(20_000)])
@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='memory is read from /proc')
def test_memory_is_constant_and_nothing_is_recompiled(config, steps, tmp_path, monkeypatch):
    """The run saves, samples, evaluates and writes events."""
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    config.num_steps, config.log_every = steps, 10
    config.sample_every = config.checkpoint_every = config.evaluation.every = steps // 20
    config.evaluation.extractor = str(write_artifact(tmp_path / 'tiny.jaxexport'))
    config.evaluation.metrics = ('frechet_distance',)
    config.evaluation.num_samples, config.evaluation.batch_size = 60, 30
    compilations, found = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if 'backend_compile' in name else None
    )
    draw = sample_grids.SampleGrids.write

    def draw_and_measure(self, state):
        draw(self, state)
        found.append((len(compilations), len(jax.live_arrays()), resident_memory()))

    monkeypatch.setattr(sample_grids.SampleGrids, 'write', draw_and_measure)
    training.train_and_evaluate(config, tmp_path / 'run')
    assert len(found) == 20
    early, late = found[5], found[-1]
    assert 0 < late[0] == early[0]
    assert late[1] <= early[1] + 2
    assert late[2] - early[2] < 16 * 2**20, [memory for *_, memory in found]

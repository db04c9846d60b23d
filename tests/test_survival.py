"""Processes killed at any moment, full disks, long runs."""

import contextlib
import functools
import os
import random
import shutil
import subprocess
import time

import jax
import pytest

from dcgan_jax import compiled, feed, models, sources, train, train_state
from dcgan_jax import mesh as mesh_lib
from dcgan_jax.tasks.restore import restore
from tests.compare import assert_equal_states
from tests.test_main import ROOT, TINY, checkpoints, command, run


def state_of(workdir):
    return restore(workdir)[2]


@pytest.mark.slow
def test_killed_at_twenty_moments_the_run_comes_to_the_same_end(tmp_path, data_dir):
    """Checkpoints every 5 steps: many of the moments are within a save."""
    flags = [*TINY, '--config.num_steps=1000', '--config.checkpoint_every=5']
    environment = {**os.environ, 'TFDS_DATA_DIR': str(data_dir)}
    moments, killed = random.Random(0), tmp_path / 'killed'
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
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.wait()
        reached.append(checkpoints(killed)[-1])
    assert reached == sorted(reached)
    result = run(*flags, f'--workdir={killed}', TFDS_DATA_DIR=str(data_dir))
    assert result.returncode == 0, result.stderr
    assert not (killed / 'damaged_checkpoints').exists()
    whole = run(*flags, f'--workdir={tmp_path / "whole"}', TFDS_DATA_DIR=str(data_dir))
    assert whole.returncode == 0, whole.stderr
    assert_equal_states(state_of(killed), state_of(tmp_path / 'whole'))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte; mounting one takes root."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', str(folder)]
    if shutil.which('mount') is None or subprocess.run(mount, check=False).returncode:
        pytest.skip('no file system can be mounted here')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


def test_a_full_disk_keeps_what_was_saved(small_disk, data_dir):
    flags = [*TINY, f'--workdir={small_disk}', '--config.checkpoint_every=1']
    environment = {'TFDS_DATA_DIR': str(data_dir)}
    first = run(*flags, '--config.num_steps=2', **environment)
    assert first.returncode == 0, first.stderr
    filler = small_disk / 'filler'
    with filler.open('wb', buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(small_disk).free < 4096
    full = run(*flags, '--config.num_steps=6', **environment)
    assert full.returncode in (1, 2), full.stderr
    assert full.stderr.splitlines()[-1].startswith('error: ')
    filler.unlink()
    assert int(state_of(small_disk).step) == 2
    after = run(*flags, '--config.num_steps=6', **environment)
    assert after.returncode == 0, after.stderr
    assert int(state_of(small_disk).step) == 6


def test_files_of_the_future_do_not_matter(config, tmp_path):
    """As after a clock that went backwards."""
    config.num_steps = 4
    train.train_and_evaluate(config, tmp_path / 'run')
    future = time.time() + 10 * 365 * 86400
    for path in (tmp_path / 'run').rglob('*'):
        os.utime(path, (future, future))
    config.num_steps = 6
    went_on = train.train_and_evaluate(config, tmp_path / 'run')
    assert_equal_states(went_on, train.train_and_evaluate(config, tmp_path / 'whole'))


def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.parametrize('steps', [600, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='memory is read from /proc')
def test_memory_stays_flat_and_nothing_compiles_again(config, steps):
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if 'backend_compile' in name else None
    )
    mesh = mesh_lib.create()
    source = sources.open_split(config, 'train')
    networks = models.build(config, source.image_shape)
    create = functools.partial(train_state.create, config, networks, source.image_shape)
    like = compiled.abstract_state(create, mesh, config.sharding)
    state = compiled.initial_state(create, like)
    call = compiled.train_call(config, mesh, like)
    ranges = compiled.CallRanges(0, steps, 1)
    split, batches = feed.feed(config, mesh, source, ranges)
    for (_, end), batch in zip(ranges, batches, strict=True):
        state, metrics = call(state, split, batch)
        if end == steps // 10:
            jax.block_until_ready(metrics)
            before, arrays, compiled_before = resident(), len(jax.live_arrays()), len(compilations)
    jax.block_until_ready(metrics)
    assert compiled_before > 0
    assert len(compilations) == compiled_before
    assert len(jax.live_arrays()) <= arrays + 2
    assert resident() - before < 16 * 2**20

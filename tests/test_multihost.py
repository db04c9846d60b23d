"""Runs of two and four local processes, with four devices in total."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import PIL.Image
import pytest

from dcgan_jax.runtime import multihost
from dcgan_jax.tasks.trained_run import restore
from tests.compare import assert_close_states
from tests.conftest import slow
from tests.extractors import write_artifact
from tests.test_main import ROOT, TINY, checkpoints, command, wait_for

DEVICES = 4


@contextlib.contextmanager
def start_processes(count, data_dir, *flags, last_flags=(), last_prefix=()):
    """Start the processes of a run, and kill them at the end.

    The last one has `last_flags` too, and its command starts with `last_prefix`.
    """
    with socket.socket() as probe:
        probe.bind(('localhost', 0))
        port = probe.getsockname()[1]
    joined = [f'--coordinator_address=localhost:{port}', f'--num_processes={count}']
    devices = f'--xla_force_host_platform_device_count={DEVICES // count}'
    environment = {
        **os.environ,
        'TFDS_DATA_DIR': str(data_dir),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} {devices}',
    }
    processes = [
        subprocess.Popen(
            [
                *(last_prefix if index == count - 1 else ()),
                *command(*TINY, *flags),
                *(last_flags if index == count - 1 else ()),
                *([*joined, f'--process_id={index}'] if count > 1 else []),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()


def finish(processes, timeout=240):
    """Wait for the processes; return their exit codes and stderr."""
    stderr = [process.communicate(timeout=timeout)[1] for process in processes]
    return [process.returncode for process in processes], stderr


def run(count, data_dir, *flags):
    with start_processes(count, data_dir, *flags) as processes:
        codes, stderr = finish(processes)
    assert codes == [0] * count, stderr


def grid(workdir, step):
    with PIL.Image.open(workdir / 'samples' / f'{step:08d}.png') as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture(scope='module')
def single_process_run(tmp_path_factory, data_dir):
    """Workdir of a run of one process."""
    workdir = tmp_path_factory.mktemp('single_process_run')
    run(1, data_dir, f'--workdir={workdir}', '--config.num_steps=8')
    return workdir


@pytest.mark.parametrize(
    ('count', 'placement'), [slow(2, 'device'), (2, 'stream'), slow(4, 'stream')]
)
def test_several_processes_produce_the_state_of_one(
    count, placement, single_process_run, tmp_path, data_dir
):
    """Checkpoints can be resumed with another number of processes."""
    flags = [f'--workdir={tmp_path}', f'--config.data.placement={placement}']
    run(count, data_dir, *flags, '--config.num_steps=4')
    assert checkpoints(tmp_path)[-1] == 4
    run(1 if count == 2 else 2, data_dir, *flags, '--config.num_steps=8')
    assert_close_states(
        restore(tmp_path).state, restore(single_process_run).state, rtol=1e-3, atol=1e-5
    )
    assert np.abs(grid(tmp_path, 8) - grid(single_process_run, 8)).max() <= 1
    assert json.loads((tmp_path / 'config.json').read_text())['config']['batch_size'] == 8


@pytest.mark.slow
@pytest.mark.parametrize('name', ['config.optimizer.generator.learning_rate', '--workdir'])
def test_processes_with_different_flags_are_rejected(tmp_path, data_dir, name):
    """This occurs if, for example, one machine has an outdated launch script."""
    flag = {'--workdir': f'--workdir={tmp_path / "b"}'}.get(name, f'--{name}=0.5')
    with start_processes(
        2, data_dir, f'--workdir={tmp_path / "a"}', last_flags=[flag]
    ) as processes:
        codes, stderr = finish(processes)
    assert codes == [2, 2], stderr
    assert all(f'the processes of this run differ in {name}: pass' in text for text in stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_invalid_config_in_one_process_stops_all_processes(tmp_path, data_dir):
    flags = ['--config.batch_size=7']
    with start_processes(2, data_dir, f'--workdir={tmp_path / "a"}', last_flags=flags) as processes:
        codes, stderr = finish(processes)
    assert codes == [2, 2], stderr
    assert 'batch_size' in stderr[1]
    assert 'another process of this run failed' in stderr[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_rejected_setting_of_jax_in_one_process_stops_all_processes(tmp_path, data_dir):
    prefix = ['env', 'JAX_ENABLE_X64=1']
    workdir = tmp_path / 'a'
    with start_processes(2, data_dir, f'--workdir={workdir}', last_prefix=prefix) as processes:
        codes, stderr = finish(processes, timeout=100)  # Without the process, JAX waits for 120 s.
    assert codes == [2, 2], stderr
    assert 'JAX_ENABLE_X64 is not supported' in stderr[1]
    assert 'another process of this run failed' in stderr[0]


def test_differing_values_are_named(monkeypatch):
    """The second process has a different value of 'b'."""

    def gather(words):
        other = words.copy()
        if len(words) == 3:  # The values; there is one hash of their names.
            other[1, 3] += 1
        return np.stack([words, other])

    values = {'a': '1', 'b': '2', 'c': '3'}
    assert multihost.find_mismatches(values) == []
    monkeypatch.setattr(multihost.jax, 'process_count', lambda: 2)
    monkeypatch.setattr(multihost.multihost_utils, 'process_allgather', gather)
    assert multihost.find_mismatches(values) == ['b']


@pytest.mark.slow
def test_several_processes_evaluate_like_one(tmp_path, data_dir, monkeypatch):
    """Compare the metrics and the best checkpoint."""
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    extractor = write_artifact(tmp_path / 'tiny.jaxexport')
    flags = [
        f'--config.evaluation.extractor={extractor}', '--config.evaluation.every=4',
        '--config.evaluation.num_samples=60', '--config.evaluation.batch_size=16',
        "--config.evaluation.metrics=('frechet_distance',)", '--config.num_steps=8',
    ]  # fmt: skip
    found = {}
    for count in (1, 2):
        workdir = tmp_path / str(count)
        run(count, data_dir, f'--workdir={workdir}', *flags)
        paths = sorted((workdir / 'evaluation').glob('*.json'))
        # By step: the rest of a name depends on the weights, which differ by rounding errors.
        distances = {
            int(path.name[:8]): json.loads(path.read_text())['frechet_distance'] for path in paths
        }
        found[count] = distances, checkpoints(workdir, 'best_checkpoint')
        best = min(distances, key=distances.get)
        assert found[count][1] == [best]
        assert int(restore(workdir, 'best').state.step) == best
    assert list(found[1][0]) == [4, 8]
    assert found[2][0] == pytest.approx(found[1][0], rel=1e-3)
    assert found[2][1] == found[1][1]


LONG = ['--config.num_steps=1000000', '--config.checkpoint_every=200']


@pytest.mark.slow
def test_preempted_process_stops_all_at_the_same_step(tmp_path, data_dir):
    with start_processes(2, data_dir, f'--workdir={tmp_path}', *LONG) as processes:
        wait_for(lambda: checkpoints(tmp_path))
        processes[1].send_signal(signal.SIGTERM)
        codes, stderr = finish(processes)
    assert codes == [143, 143], stderr
    stopped = f'SIGTERM: stopped at step {checkpoints(tmp_path)[-1]} '
    assert all(stopped in words for words in stderr), stderr


@pytest.mark.slow
@pytest.mark.parametrize('lost', [0, 1])
def test_lost_process_stops_the_others(lost, tmp_path, data_dir):
    with start_processes(2, data_dir, f'--workdir={tmp_path}', *LONG) as processes:
        wait_for(lambda: checkpoints(tmp_path))
        processes[lost].kill()
        began = time.monotonic()
        _, stderr = processes[1 - lost].communicate(timeout=120)
    assert processes[1 - lost].returncode not in (0, 2), stderr
    assert time.monotonic() - began < 90
    print(stderr[-3000:])
    assert 'process' in stderr.lower()
    last = checkpoints(tmp_path)[-1]
    run(2, data_dir, f'--workdir={tmp_path}', f'--config.num_steps={last + 2}')
    assert checkpoints(tmp_path)[-1] == last + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ('mount', 'message'),
    [
        ('mount -t tmpfs none {}', 'is not shared by all processes'),
        ('mount --bind {0} {0} && mount -o remount,bind,ro {0}', 'is not writable'),
    ],
    ids=['not shared', 'read-only'],
)
def test_workdir_that_one_process_cannot_use_is_rejected(tmp_path, data_dir, mount, message):
    """For the second process, another or a read-only file system is mounted (needs root)."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['unshare', '--mount', 'sh', '-c', f'{mount.format(disk)} && exec "$@"', 'sh']
    if shutil.which('unshare') is None or subprocess.run([*mount, 'true'], check=False).returncode:
        pytest.skip('no file system can be mounted here')
    flags = [f'--workdir={disk / "run"}', '--config.num_steps=2']
    with start_processes(2, data_dir, *flags, last_prefix=mount) as processes:
        codes, stderr = finish(processes)
    assert codes == [2, 2], stderr
    assert message in stderr[1]
    assert [path.name for path in (disk / 'run').iterdir()] == ['.lock']


@pytest.mark.slow
def test_error_of_the_first_process_stops_all_processes(tmp_path, data_dir):
    (tmp_path / 'file').write_text('')
    with start_processes(
        2, data_dir, f'--workdir={tmp_path / "file"}', '--config.num_steps=2'
    ) as processes:
        codes, stderr = finish(processes)
    assert codes == [2, 2], stderr
    assert 'not writable' in stderr[0]

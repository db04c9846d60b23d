"""The command line: exit codes, errors in one line, and resumption of real processes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dcgan_jax.data import sources
from tests.command_line import call_main

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = [
    '--config=configs/quickstart.py',
    '--config.conv_impl=xla',  # Compiles faster.
    '--config.generator.base_features=8',
    '--config.dataset=tiny_images',
    '--config.batch_size=8',
    '--config.latent_dim=4',
    '--config.generator.base_size=2',
    '--config.generator.features=(8,)',
    '--config.generator.strides=(2,2)',
    '--config.discriminator.features=(8,8)',
    '--config.discriminator.strides=(2,2)',
]


def command(*flags):
    return [sys.executable, 'main.py', *map(str, flags)]


def run(*flags, **environment):
    return subprocess.run(
        command(*flags),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_rejected(result, *words):
    """Assert exit code 2 and one line on stderr with the given words."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith('error: ')
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--workdir={tmp}/w'], ['--config is missing']),
        (['--workdir={tmp}/w', '--mode=explore', '--mask=x.png'], ['--mask', '--mode=inpaint']),
        (['--workdir={tmp}/w', '--classes=cat'], ['--classes', '--mode=train', '--mode=sample']),
        (
            ['--workdir={tmp}/w', '--mode=sample', '--distributed'],
            ['--mode=sample', 'single process'],
        ),
        (['--config=configs/cifar10.py'], ['--workdir is missing']),
        (['--config=configs/nothing.py', '--workdir={tmp}/w'], ['nothing.py', '--config=']),
        (['--mode=paint', '--workdir={tmp}/w'], ['--mode=paint', 'train|sample|evaluate']),
        (['--wokdir={tmp}/w'], ['wokdir']),
        (['train'], ["'train'", '--NAME=VALUE']),
        ([*TINY, '--workdir={tmp}/w', '--config.batchsize=3'], ['batchsize', '"batch_size"']),
        ([*TINY, '--workdir={tmp}/w', '--config.batch_size=x'], ['batch_size']),
        ([*TINY, '--workdir={tmp}/w', '--config.batch_size=0'], ['batch_size=0']),
        ([*TINY, '--workdir={tmp}/file'], ['file', 'not writable']),
        ([*TINY, '--workdir={tmp}/w', '--config.dataset=cifar'], ['cifar', 'cifar10']),
        ([*TINY, '--workdir={tmp}/w', '--config.data_dir={tmp}/no'], ['no', 'does not exist']),
        (['--mode=sample', '--workdir={tmp}/w'], ['contains no run']),
        (['--mode=sample', '--workdir={tmp}/w', '--num=0'], ['--num=0']),
        (['--mode=evaluate', '--workdir={tmp}/w'], ['contains no run']),
        (['--mode=evaluate', '--config.evaluation.every=3'], ['every', 'also pass --config=FILE']),
        (['--mode=evaluate', '--images={tmp}/none'], ['--workdir is missing']),
        ([*TINY, '--mode=evaluate', '--images={tmp}/none'], ['none', '--images=']),
        ([*TINY, '--mode=evaluate', '--images={tmp}/broken'], ['broken', 'no image files']),
        (
            [*TINY, '--mode=evaluate', '--images={tmp}/none', '--checkpoint=best'],
            ['--checkpoint', 'not supported with --images'],
        ),
        ([*TINY, '--workdir='], ['--workdir is empty']),
        ([*TINY, '--workdir={tmp}/w', '--config.generator.base_size=4'], ['16x16']),
        (['--config={tmp}/syntax.py', '--workdir={tmp}/w'], ['syntax.py']),
        (['--mode=sample', '--workdir={tmp}/broken'], ['config.json', 'damaged']),
    ],
    ids=lambda value: ' '.join(value)[-60:] if isinstance(value, list) else None,
)
@pytest.mark.filterwarnings('ignore')
def test_user_errors_print_one_line_and_exit_with_2(flags, words, tmp_path, data_dir, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    sources.open_source('tiny_images')  # Imports libraries that define flags.
    (tmp_path / 'file').write_text('')
    (tmp_path / 'syntax.py').write_text('x = (')
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'config.json').write_text('{"config": 3')
    before = sorted(tmp_path.rglob('*'))
    flags = [flag.format(tmp=tmp_path) for flag in flags]
    assert_rejected(call_main(*flags), *words)
    left = [path for path in sorted(tmp_path.rglob('*')) if path.name != 'w']
    assert left == before


def test_process_with_a_user_error_exits_with_2(tmp_path):
    (tmp_path / 'file.py').write_text('')  # In this process, other configs are imported.
    flags = f'--config={tmp_path / "file.py"}', f'--workdir={tmp_path / "w"}'
    assert_rejected(run(*flags), 'no function get_config')
    assert_rejected(run(f'--flagfile={tmp_path / "missing"}'), 'Unable to open flagfile')


@pytest.mark.parametrize('flag', ['--help', '--helpfull'])
def test_help_ignores_a_closed_pipe(flag):
    shell = f'{sys.executable} main.py {flag} | head -1; exit "${{PIPESTATUS[0]}}"'
    result = subprocess.run(
        ['bash', '-c', shell], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.count('\n') == 1


def test_help_is_fast():
    start = time.monotonic()
    result = run('--help')
    assert '--workdir' in result.stdout
    assert result.returncode == 0
    assert time.monotonic() - start < 5


def checkpoints(workdir, folder='checkpoints'):
    return sorted(int(p.name) for p in (workdir / folder).glob('*') if p.name.isdigit())


def wait_for(condition, seconds=240):
    """Wait until `condition()` is true, or fail."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_resume_after_sigkill_produces_the_same_samples(tmp_path, data_dir):
    flags = [*TINY, '--config.checkpoint_every=20']
    environment = {**os.environ, 'TFDS_DATA_DIR': str(data_dir)}
    killed = tmp_path / 'killed'
    process = subprocess.Popen(
        command(*flags, '--config.num_steps=1000000', f'--workdir={killed}'),
        cwd=ROOT, env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: checkpoints(killed))
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = checkpoints(killed)[-1]

    flags.append(f'--config.num_steps={last + 30}')
    result = run(*flags, f'--workdir={killed}', TFDS_DATA_DIR=str(data_dir))
    assert result.returncode == 0, result.stderr
    assert f'from step {last} to {last + 30}' in result.stderr
    whole = run(*flags, f'--workdir={tmp_path / "whole"}', TFDS_DATA_DIR=str(data_dir))
    assert whole.returncode == 0, whole.stderr

    arrays = []
    for name in ('killed', 'whole'):
        out = tmp_path / f'samples_{name}'
        sampled = call_main(
            '--mode=sample', f'--workdir={tmp_path / name}', '--num=6', f'--out={out}'
        )
        assert sampled.returncode == 0, sampled.stderr
        assert sampled.stdout == f'results: {out / "samples.png"}\n'
        arrays.append(np.load(out / 'samples.npz', allow_pickle=False)['images'])
    np.testing.assert_array_equal(*arrays)


@pytest.mark.slow
def test_second_process_in_a_workdir_is_rejected(tmp_path, data_dir):
    flags = [*TINY, '--config.checkpoint_every=100000', f'--workdir={tmp_path}']
    environment = {'TFDS_DATA_DIR': str(data_dir)}
    first = subprocess.Popen(
        command(*flags, '--config.num_steps=1000000', '--config.sample_every=50'),
        cwd=ROOT,
        env=os.environ | environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: list(tmp_path.glob('samples/*.png')))
        second = run(*flags, '--config.num_steps=2', **environment)
        assert second.returncode == 2, second.stderr
        assert 'is in use by another process' in second.stderr.splitlines()[-1]
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    (tmp_path / 'samples').rename(tmp_path / 'old_samples')  # The killed run saved no checkpoint.
    third = run(*flags, '--config.num_steps=2', **environment)
    assert third.returncode == 0, third.stderr


@pytest.mark.slow
@pytest.mark.usefixtures('default_signals')
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_resume_after_a_signal_produces_the_same_samples(number, tmp_path, data_dir):
    flags = [*TINY, '--config.checkpoint_every=1000000']
    environment = {**os.environ, 'TFDS_DATA_DIR': str(data_dir)}
    workdir = tmp_path / 'run'
    process = subprocess.Popen(
        command(
            *flags, '--config.num_steps=1000000', '--config.sample_every=50', f'--workdir={workdir}'
        ),
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: list(workdir.glob('samples/*.png')))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number, stderr
    (step,) = checkpoints(workdir)
    assert step >= 50
    last = stderr.strip().splitlines()[-1]
    assert last.startswith(f'{number.name}: stopped at step {step} ')

    flags.append(f'--config.num_steps={step + 5}')
    whole = tmp_path / 'whole'
    for folder in (workdir, whole):
        result = run(*flags, f'--workdir={folder}', TFDS_DATA_DIR=str(data_dir))
        assert result.returncode == 0, result.stderr
    pictures = [folder / 'samples' / f'{step + 5:08d}.png' for folder in (workdir, whole)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


@pytest.mark.slow
def test_exhausted_device_memory_is_reported_in_one_line(tmp_path):
    script = """
import jax, jax.numpy as jnp
from dcgan_jax import __main__, cli
cli._train = jax.jit(lambda: jnp.zeros(2**42))
__main__.run()
"""
    flags = ['--config=configs/quickstart.py', f'--workdir={tmp_path / "w"}']
    result = subprocess.run(
        [sys.executable, '-c', script, *flags],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith('error: RESOURCE_EXHAUSTED')
    assert 'smaller batch_size or width' in last
    assert 'Traceback' not in result.stderr

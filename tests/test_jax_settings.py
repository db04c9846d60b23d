"""Settings of JAX that change results or are not supported."""

import os
import signal

import jax
import pytest

from dcgan_jax.runtime import jax_settings, preemption
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.prng import Purpose, purpose_key
from tests.conftest import slow
from tests.test_main import TINY, assert_rejected, run


def test_default_generator_of_random_numbers_has_no_effect():
    expected = jax.random.uniform(purpose_key(3, Purpose.SAMPLES), (5,))
    with jax.default_prng_impl('rbg'):
        assert (jax.random.uniform(purpose_key(3, Purpose.SAMPLES), (5,)) == expected).all()


@pytest.mark.parametrize(
    ('setting', 'name'),
    [
        (lambda: jax.enable_x64(True), 'JAX_ENABLE_X64'),
        (lambda: jax.threefry_partitionable(False), 'JAX_THREEFRY_PARTITIONABLE'),
        (jax.disable_jit, 'JAX_DISABLE_JIT'),
        (lambda: jax.transfer_guard('disallow'), 'JAX_TRANSFER_GUARD=disallow is'),
        (
            lambda: jax.transfer_guard_device_to_host('disallow_explicit'),
            'JAX_TRANSFER_GUARD_DEVICE_TO_HOST=disallow_explicit is',
        ),
    ],
)
def test_unsupported_settings_are_rejected(setting, name):
    with setting(), pytest.raises(UserError, match=name):
        jax_settings.check()
    jax_settings.check()


@pytest.mark.parametrize('error', [AssertionError(), RuntimeError('no driver\nmore')])
def test_missing_device_is_reported_in_one_line(error, monkeypatch):
    def devices():
        raise error

    monkeypatch.setattr(jax, 'devices', devices)
    with pytest.raises(UserError, match='JAX cannot start') as raised:
        jax_settings.check()
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('variable', 'message'),
    [
        ('JAX_PLATFORMS', 'JAX cannot start'),
        slow('JAX_DEFAULT_MATMUL_PRECISION', 'JAX cannot be imported'),
    ],
)
def test_process_with_an_invalid_environment_variable_exits_with_2(
    variable, message, tmp_path, data_dir, monkeypatch
):
    monkeypatch.setenv(variable, 'nonsense')
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    assert_rejected(run(*TINY, f'--workdir={tmp_path / "w"}'), message)
    assert not (tmp_path / 'w').exists()


@pytest.mark.usefixtures('default_signals')
def test_closed_terminal_stops_a_run_unless_nohup_ignores_it():
    before = signal.getsignal(signal.SIGHUP)
    with preemption.watch() as watcher:
        os.kill(os.getpid(), signal.SIGHUP)
        assert watcher.should_stop()
        assert watcher.signal == signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with preemption.watch() as watcher:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not watcher.should_stop()
    finally:
        signal.signal(signal.SIGHUP, before)

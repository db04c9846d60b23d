"""Convolutions by oneDNN compared to XLA in float64, and the conditions of their use."""

import functools
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest

from dcgan_jax import training
from dcgan_jax.models import conv, conv_onednn
from tests.compare import assert_equal_states
from tests.conftest import slow

CONVS = ['conv', 'conv_transpose']
each_conv = pytest.mark.parametrize('name', CONVS)
needs_onednn = pytest.mark.skipif(not conv_onednn.is_available(), reason='needs a CPU with AMX')


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def xla(name):
    return functools.partial(getattr(conv, name), conv_impl='xla')


def gradients(function, strides, x, kernel):
    """Return the output, its gradients, and a second-order gradient of the kernel."""
    function = functools.partial(function, strides=strides)
    y, vjp = jax.vjp(function, x, kernel)
    cotangent = jnp.asarray(normal(2, *y.shape)).astype(jnp.bfloat16).astype(y.dtype)

    def penalty(kernel):
        x_grad, _ = jax.vjp(function, x, kernel)[1](cotangent)
        return jnp.sum(x_grad.astype(kernel.dtype) ** 2)

    return (y, *vjp(cotangent), jax.grad(penalty)(kernel))


def errors(name, strides, dtype, *arrays):
    """Return the relative errors (L2) of oneDNN's results for arrays rounded to bfloat16."""
    arrays = [jnp.asarray(array).astype(jnp.bfloat16).astype(dtype) for array in arrays]
    actual = jax.jit(functools.partial(gradients, getattr(conv_onednn, name), strides))(*arrays)
    assert {array.dtype for array in actual} == {jnp.dtype(dtype)}
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(array, np.float64)) for array in arrays]
        expected = jax.jit(functools.partial(gradients, xla(name), strides))(*wide)
        expected = [np.asarray(array) for array in expected]
    return [
        np.linalg.norm(np.asarray(a, np.float64) - e) / np.linalg.norm(e)
        for a, e in zip(actual, expected, strict=True)
    ]


@needs_onednn
@each_conv
@pytest.mark.parametrize(
    ('k', 'strides', 'size'),
    [
        *[(4, 2, (8, 6)), (5, 2, (16, 9)), (3, 1, (5, 4))],
        *(slow(k, 1, size) for k in (1, 2, 4, 5, 7) for size in ((5, 8), (1, 1))),
        *(slow(k, 2, size) for k in (1, 2, 3, 6, 7) for size in ((5, 12), (12, 11), (1, 1))),
    ],
)
def test_results_and_gradients_equal_those_of_xla(name, k, strides, size):
    x, kernel = normal(0, 3, *size, 6), normal(1, k, k, 6, 5)
    assert max(errors(name, strides, jnp.float32, x, kernel)) < 2e-6


@needs_onednn
@each_conv
@pytest.mark.parametrize(
    ('channels', 'k', 'strides'), [((256, 16), 4, 2), ((256, 16), 5, 1), ((3, 64), 4, 2)]
)
def test_bfloat16_results_are_rounded_once(name, channels, k, strides):
    """The second-order gradient is computed from a rounded first-order gradient."""
    x, kernel = normal(0, 4, 8, 8, channels[0]), normal(1, k, k, *channels)
    *first, second = errors(name, strides, jnp.bfloat16, x, kernel)
    assert max(first) < 1.8e-3
    assert second < 3e-3


@needs_onednn
def test_simultaneous_convolutions_are_reproducible():
    """XLA executes independent calls in several threads at the same time."""
    shapes = [(16, 32, 64, 5, 2), (8, 64, 32, 3, 1), (16, 3, 64, 4, 2), (8, 32, 3, 5, 2)]
    inputs = [
        (jnp.asarray(normal(0, 16, size, size, c), jnp.bfloat16), normal(1, k, k, c, f), strides)
        for size, c, f, k, strides in shapes
    ]

    @jax.jit
    def run():
        return [
            gradients(conv_onednn.conv, strides, x, jnp.asarray(kernel, jnp.bfloat16))
            for x, kernel, strides in inputs
        ]

    first = run()
    for _ in range(50):
        jax.tree.map(np.testing.assert_array_equal, run(), first)


def program(dtype):
    x, kernel = jnp.ones((2, 8, 8, 8), dtype), jnp.ones((4, 4, 8, 8), dtype)
    return jax.jit(lambda *args: conv.conv(*args, strides=2)).lower(x, kernel).as_text()


@needs_onednn
def test_auto_uses_onednn_for_bfloat16():
    assert 'onednn' in program(jnp.bfloat16)
    assert 'onednn' not in program(jnp.float32)


@needs_onednn
def test_resume_is_bit_exact(config, tmp_path):
    config.dtype, config.conv_impl = 'bfloat16', 'auto'
    whole = training.train_and_evaluate(config, tmp_path / 'whole')
    for stop in (3, 6):
        config.num_steps = stop
        resumed = training.train_and_evaluate(config, tmp_path / 'parts')
    assert_equal_states(resumed, whole)


@needs_onednn
@pytest.mark.parametrize('platforms', [('cpu', 'cpu'), ('gpu',), ('tpu',)])
def test_other_devices_do_not_use_onednn(monkeypatch, platforms):
    """Otherwise tracing would disable the compilation cache of GPUs, too."""
    devices = [types.SimpleNamespace(platform=platform) for platform in platforms]
    monkeypatch.setattr(jax, 'devices', lambda: devices)
    assert 'onednn' not in program(jnp.bfloat16)


@pytest.mark.parametrize('version', [(0, 9, 1), (0, 13, 0)])
def test_other_versions_of_jaxlib_do_not_use_onednn(monkeypatch, version):
    monkeypatch.setattr(conv_onednn, 'has_amx', lambda: True)
    assert conv_onednn.is_available()
    monkeypatch.setattr(jaxlib.version, '__version_info__', version)
    assert not conv_onednn.is_available()


def test_tested_versions_of_jaxlib_end_with_those_of_the_requirements():
    requirements = pathlib.Path('requirements.txt').read_text()
    (cap,) = re.findall(r'^jax>=.*,<(\d+)\.(\d+)', requirements, re.MULTILINE)
    assert (*map(int, cap), 0) == conv_onednn.JAXLIB_VERSIONS[1]


@pytest.mark.parametrize(
    ('flags', 'expected'), [('avx2 avx512_bf16', False), ('avx2 amx_bf16', True), (None, False)]
)
def test_amx_is_detected_by_cpu_flags(monkeypatch, tmp_path, flags, expected):
    file = tmp_path / 'cpuinfo'
    if flags is not None:
        file.write_text(f'processor : 0\nflags : fpu {flags}\n')
    monkeypatch.setattr(conv_onednn, '_CPU_INFO', file)
    assert conv_onednn.has_amx.__wrapped__() == expected


_COMPILE = """
import jax, jax.numpy as jnp
from dcgan_jax.models import conv_onednn
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)

@jax.jit
def increment(x):
    return x + 1

@jax.jit
def convolve(x, kernel):
    return conv_onednn.conv(x, kernel, strides=2)

increment(jnp.ones(3))
print(convolve(jnp.ones((2, 8, 8, 8)), jnp.ones((4, 4, 8, 8))).sum())
"""


@needs_onednn
def test_programs_with_onednn_are_not_written_to_the_compilation_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path))
    outputs = [
        subprocess.check_output([sys.executable, '-W', 'error', '-c', _COMPILE], text=True)
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1]
    assert float(outputs[0]) > 0
    names = ' '.join(path.name for path in tmp_path.iterdir())
    assert ('increment' in names, 'convolve' in names) == (True, False)

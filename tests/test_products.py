"""Products with bfloat16 operands compared to float64, alone and in convolutions."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax.models import conv, products
from tests.conftest import slow

CONVS = {'conv': conv.conv, 'conv_transpose': conv.conv_transpose}


@pytest.fixture
def with_units(monkeypatch):
    """Assume that the CPU has bfloat16 units."""
    monkeypatch.setattr(products, 'cpu_multiplies_bfloat16', lambda: True)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def rounded(x):
    return np.asarray(x.astype(jnp.bfloat16), np.float64)


def relative_error(actual, expected):
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


# The number of rows determines which operand is transposed.
@pytest.mark.parametrize('rows', [3, 300])
@pytest.mark.parametrize('subscripts', ['tc,co->to', 'tc,oc->to'])
def test_products_and_their_gradients_round_operands_only(subscripts, rows):
    left, right = draw(0, rows, 64), draw(1, *((64, 7) if 'co->' in subscripts else (7, 64)))
    function = functools.partial(products.einsum, subscripts, jnp.bfloat16)
    y, vjp = jax.vjp(function, left, right)
    cotangent = draw(2, *y.shape)
    left_grad, right_grad = vjp(cotangent)
    operands, result = subscripts.split('->')
    of_left, of_right = operands.split(',')
    for actual, reference in (
        (y, np.einsum(subscripts, rounded(left), rounded(right))),
        (
            left_grad,
            np.einsum(f'{result},{of_right}->{of_left}', rounded(cotangent), rounded(right)),
        ),
        (
            right_grad,
            np.einsum(f'{of_left},{result}->{of_right}', rounded(left), rounded(cotangent)),
        ),
    ):
        assert actual.dtype == jnp.float32
        assert relative_error(actual, reference) < 1e-6


def dot_types(function, *args):
    """Return the types of operands and results of all matrix products in a compiled function."""
    text = jax.jit(function).lower(*args).as_text()
    lines = re.findall(r'stablehlo.dot_general .* : \((.*), (.*)\) -> (.*)$', text, re.MULTILINE)
    return {tuple(re.search(r'x([a-z]+\d+)>', shape)[1] for shape in line) for line in lines}


def gradients(function, x, kernel):
    """Return the output, its gradients, and a second-order gradient of the kernel."""
    y, vjp = jax.vjp(function, x, kernel)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=y.shape)).astype(jnp.bfloat16)
    weights = weights.astype(y.dtype)

    def penalty(kernel):
        x_grad, _ = jax.vjp(function, x, kernel)[1](weights)
        return jnp.sum(x_grad.astype(weights.dtype) ** 2)

    return (y, *vjp(weights), jax.grad(penalty)(kernel))


@pytest.mark.usefixtures('with_units')
@pytest.mark.parametrize('name', CONVS)
@pytest.mark.parametrize(
    ('channels', 'k', 'strides', 'limit'),
    [
        slow((256, 16), 4, 2, 8e-3, id='two_taps'),
        pytest.param((256, 16), 3, 1, 8e-3, id='three_taps'),
        pytest.param((256, 16), 5, 1, 3e-3, id='five_taps'),
        pytest.param((256, 3), 4, 2, 2e-3, id='patches'),
    ],
)
def test_convolutions_and_gradients_are_close_to_float64(name, channels, k, strides, limit):
    """Compare with float64; XLA's bfloat16 convolutions have an error of 1.7e-3."""
    function = functools.partial(CONVS[name], strides=strides, conv_impl='matmul')
    reference = functools.partial(CONVS[name], strides=strides, conv_impl='xla')
    x, kernel = (
        draw(i, *shape).astype(jnp.bfloat16)
        for i, shape in enumerate([(4, 8, 8, channels[0]), (k, k, *channels)])
    )
    actual = jax.jit(functools.partial(gradients, function))(x, kernel)
    with jax.enable_x64(True):
        wide = (jnp.asarray(np.asarray(array, np.float64)) for array in (x, kernel))
        expected = jax.jit(functools.partial(gradients, reference))(*wide)
    for array, other in zip(actual, expected, strict=True):
        assert array.dtype == jnp.bfloat16
        assert relative_error(array, other) < limit


@pytest.mark.usefixtures('with_units')
@pytest.mark.parametrize('name', CONVS)
@pytest.mark.parametrize(
    ('channels', 'k', 'dtype', 'expected'),
    [
        pytest.param((256, 16), 4, jnp.bfloat16, {('bf16', 'bf16', 'f32')}, id='two_taps'),
        slow((256, 3), 4, jnp.bfloat16, {('bf16', 'bf16', 'f32')}, id='patches'),
        slow((256, 16), 5, jnp.bfloat16, {('bf16', 'bf16', 'f32')}, id='three_taps'),
        slow((256, 16), 7, jnp.bfloat16, {('f32', 'f32', 'f32')}, id='four_taps'),
        pytest.param((256, 16), 4, jnp.float32, {('f32', 'f32', 'f32')}, id='float32'),
    ],
)
def test_operands_are_bfloat16_in_gradients_of_every_order(name, channels, k, dtype, expected):
    function = functools.partial(CONVS[name], strides=2, conv_impl='matmul')
    x, kernel = draw(0, 2, 8, 8, channels[0]), draw(1, k, k, *channels)
    operands = x.astype(dtype), kernel.astype(dtype)
    assert dot_types(functools.partial(gradients, function), *operands) == expected


def test_cpus_without_bfloat16_units_multiply_float32(monkeypatch):
    monkeypatch.setattr(products, 'cpu_multiplies_bfloat16', lambda: False)
    function = functools.partial(conv.conv, strides=2, conv_impl='matmul')
    x, kernel = jnp.ones((2, 8, 8, 8), jnp.bfloat16), jnp.ones((4, 4, 8, 8), jnp.bfloat16)
    assert dot_types(functools.partial(gradients, function), x, kernel) == {('f32', 'f32', 'f32')}


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [('avx2 fma', False), ('avx2 amx_bf16 amx_tile', True), ('avx512_bf16', True), (None, False)],
)
def test_bfloat16_units_are_detected_by_cpu_flags(monkeypatch, tmp_path, flags, expected):
    file = tmp_path / 'cpuinfo'
    if flags is not None:
        file.write_text(f'processor : 0\nflags : fpu {flags}\n')
    monkeypatch.setattr(products, '_CPU_INFO', file)
    products.cpu_multiplies_bfloat16.cache_clear()
    assert products.cpu_multiplies_bfloat16() == expected
    products.cpu_multiplies_bfloat16.cache_clear()


@pytest.mark.skipif(not products.has_cpu_flag('amx_bf16'), reason='needs a CPU with AMX')
@pytest.mark.parametrize('rows', [4, 1000])
def test_compiled_gradients_have_bfloat16_operands(rows):
    """XLA may fuse a transposition with a product and then convert the operands to float32."""

    def gradients(left, right, cotangent):
        function = functools.partial(products.einsum, 'tc,co->to', jnp.bfloat16)
        return jax.vjp(function, left, right)[1](cotangent)

    operands = draw(0, rows, 64), draw(1, 64, 32), draw(2, rows, 32)
    text = jax.jit(gradients).lower(*operands).compile().as_text()
    assert re.search(r'= bf16.* convert\(', text)
    assert not re.search(r'= f32.* convert\(', text)

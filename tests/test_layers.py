"""Convolutions compared to XLA, flax, and loops in NumPy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dcgan_jax.models import conv, conv_winograd, layers
from tests.conftest import slow, slow_except

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
CONVS = {'conv': conv.conv, 'conv_transpose': conv.conv_transpose}
each_conv = pytest.mark.parametrize('name', CONVS)
# 'matmul' uses patches for 3 channels and Winograd's transforms for 6 channels.
each_form = pytest.mark.parametrize('channels', [(3, 5), (6, 5)], ids=['patches', 'winograd'])
each_implementation = pytest.mark.parametrize('conv_impl', conv.IMPLEMENTATIONS)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def apply(name, conv_impl, strides):
    return functools.partial(CONVS[name], strides=strides, conv_impl=conv_impl)


def xla_reference(name, x, kernel, strides):
    function = {'conv': lax.conv_general_dilated, 'conv_transpose': lax.conv_transpose}[name]
    return function(x, kernel, (strides, strides), 'SAME', dimension_numbers=DIMENSIONS)


def loop_conv(x, kernel, strides):
    """Return a convolution with 'SAME' padding in float64, as loops over pixels."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    (batch, height, width, _), k = x.shape, kernel.shape[0]
    out_height, out_width = -(-height // strides), -(-width // strides)
    top = max((out_height - 1) * strides + k - height, 0) // 2
    left = max((out_width - 1) * strides + k - width, 0) // 2
    y = np.zeros((batch, out_height, out_width, kernel.shape[3]))
    for i, j, a, b in np.ndindex(out_height, out_width, k, k):
        row, column = i * strides + a - top, j * strides + b - left
        if 0 <= row < height and 0 <= column < width:
            y[:, i, j] += x[:, row, column] @ kernel[a, b]
    return y


def loop_conv_transpose(x, kernel, strides):
    """Return `lax.conv_transpose` with 'SAME' padding in float64, as loops over pixels."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    (batch, height, width, _), k = x.shape, kernel.shape[0]
    padding = k + strides - 2  # Padding of the zero-stuffed input.
    low = k - 1 if strides > k - 1 else -(-padding // 2)
    y = np.zeros((batch, height * strides, width * strides, kernel.shape[3]))
    for i, j, a, b in np.ndindex(height, width, k, k):
        row, column = i * strides + low - a, j * strides + low - b
        if 0 <= row < y.shape[1] and 0 <= column < y.shape[2]:
            y[:, row, column] += x[:, i, j] @ kernel[a, b]
    return y


@pytest.mark.parametrize('conv_impl', ['matmul', 'adjoint', slow('xla')])
@each_conv
@each_form
@pytest.mark.parametrize(
    ('k', 'strides'),
    [
        *[(3, 1), (4, 1), (3, 2), (4, 2)],
        *(slow(k, 1) for k in (1, 5, 7, 9)),
        *(slow(k, 2) for k in (1, 2, 5, 6, 7)),
    ],
)
def test_forward_equals_numpy_loops(name, conv_impl, channels, k, strides):
    loop = {'conv': loop_conv, 'conv_transpose': loop_conv_transpose}[name]
    x, kernel = normal(0, 2, 5, 8, channels[0]), normal(1, k, k, *channels)
    actual = jax.jit(apply(name, conv_impl, strides))(x, kernel)
    expected = loop(x, kernel, strides)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('conv_impl', ['matmul', 'adjoint'])
@each_conv
@each_form
@pytest.mark.parametrize(
    ('k', 'strides', 'size'),
    [
        *[(3, 1, 5), (4, 2, 7), slow(1, 1, 4), slow(4, 1, 6), slow(1, 2, 5), slow(3, 2, 6)],
        *[slow(5, 2, 8), slow(6, 2, 1)],
    ],
)
def test_gradients_equal_those_of_xla(conv_impl, name, channels, k, strides, size):
    x, kernel = normal(0, 2, size, size + 1, channels[0]), normal(1, k, k, *channels)
    y, reference_vjp = jax.vjp(lambda *args: xla_reference(name, *args, strides), x, kernel)
    weights = normal(2, *y.shape)

    @jax.jit
    def gradients(x, kernel):
        return jax.vjp(apply(name, conv_impl, strides), x, kernel)[1](weights)

    for actual, expected in zip(gradients(x, kernel), reference_vjp(weights), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-4)


@each_form
@pytest.mark.parametrize(
    ('name', 'k', 'strides'),
    [('conv', 4, 2), ('conv_transpose', 3, 1), slow('conv_transpose', 4, 2)],
)
def test_gradient_penalty_gradients_are_equal_in_all_implementations(name, channels, k, strides):
    x, kernel = normal(0, 2, 4, 4, channels[0]), normal(1, k, k, *channels) / k

    def penalty(kernel, conv_impl):
        def critic(x):
            return jnp.sum(jnp.tanh(apply(name, conv_impl, strides)(x, kernel)))

        return jnp.sum(jax.grad(critic)(x) ** 2)

    expected, *others = (
        jax.jit(functools.partial(jax.grad(penalty), conv_impl=conv_impl))(kernel)
        for conv_impl in ('xla', 'matmul', 'adjoint', 'auto')
    )
    assert jnp.linalg.norm(expected) > 1
    for actual in others:
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)


each_tested = pytest.mark.parametrize(
    'conv_impl', slow_except(conv.IMPLEMENTATIONS, 'auto', 'adjoint')
)


@each_tested
@each_conv
@each_form
def test_vmap_over_kernels(name, conv_impl, channels):
    x, kernels = normal(0, 2, 4, 4, channels[0]), normal(1, 3, 4, 4, *channels)
    function = apply(name, conv_impl, 2)
    actual = jax.jit(jax.vmap(function, (None, 0)))(x, kernels)
    expected = jnp.stack([xla_reference(name, x, kernel, 2) for kernel in kernels])
    np.testing.assert_allclose(actual, expected, atol=3e-5)


@each_tested
@each_conv
@each_form
def test_gradient_of_scan_over_batches(name, conv_impl, channels):
    batches, kernel = normal(0, 3, 2, 4, 4, channels[0]), normal(1, 4, 4, *channels)

    def total(kernel, function):
        def step(carry, x):
            return carry + jnp.sum(function(x, kernel) ** 2), None

        return lax.scan(step, 0.0, batches)[0]

    actual = jax.jit(jax.grad(total), static_argnums=1)(kernel, apply(name, conv_impl, 2))
    reference = functools.partial(xla_reference, name, strides=2)
    expected = jax.jit(jax.grad(total), static_argnums=1)(kernel, reference)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


@each_tested
@each_conv
@each_form
def test_bfloat16_output_is_rounded_once(name, conv_impl, channels):
    shapes = (2, 8, 8, channels[0]), (4, 4, *channels)
    x, kernel = (normal(i, *shape).astype(jnp.bfloat16) for i, shape in enumerate(shapes))
    function = apply(name, conv_impl, 2)
    actual = jax.jit(function)(x, kernel)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(function(x, kernel))))(x)
    assert (actual.dtype, gradient.dtype) == (jnp.bfloat16, jnp.bfloat16)
    expected = xla_reference(name, x.astype(jnp.float32), kernel.astype(jnp.float32), 2)
    error = jnp.abs(actual.astype(jnp.float32) - expected).max()
    assert error <= 2**-8 * jnp.abs(expected).max()


@each_conv
@each_form
def test_auto_uses_products_on_cpus_and_convolutions_elsewhere(name, channels):
    x, kernel = normal(0, 2, 4, 4, channels[0]), normal(1, 4, 4, *channels)

    @jax.jit
    def gradients(x, kernel):
        return jax.grad(lambda *args: jnp.sum(apply(name, 'auto', 2)(*args) ** 2), (0, 1))(
            x, kernel
        )

    traced = gradients.trace(x, kernel)
    programs = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ('cpu', 'cuda', 'tpu')}
    found = {
        platform: ('dot_general' in program, 'convolution' in program)
        for platform, program in programs.items()
    }
    assert found == {'cpu': (True, False), 'cuda': (False, True), 'tpu': (False, True)}


@each_conv
@pytest.mark.parametrize(('k', 'strides', 'limit'), [(4, 2, 1.5e-6), (3, 1, 5e-6), (5, 1, 1e-5)])
def test_winograd_is_accurate(name, k, strides, limit):
    x, kernel = normal(0, 2, 8, 8, 256), normal(1, k, k, 256, 16)
    loop = {'conv': loop_conv, 'conv_transpose': loop_conv_transpose}[name]
    reference = loop(x, kernel, strides)
    actual = jax.jit(apply(name, 'matmul', strides))(x, kernel)
    relative = np.sqrt(np.mean((actual - reference) ** 2) / np.mean(reference**2))
    assert relative < limit


def test_winograd_rejects_large_kernels():
    with pytest.raises(ValueError, match='got 8'):
        conv_winograd.conv(jnp.ones((1, 8, 8, 5)), jnp.ones((8, 8, 5, 5)), 1)


@each_conv
def test_invalid_arguments_are_rejected(name):
    x, kernel = jnp.ones((1, 4, 4, 3)), jnp.ones((4, 4, 3, 2))
    with pytest.raises(ValueError, match=r"'auto', 'matmul', 'adjoint', 'xla'.*'fast'"):
        apply(name, 'fast', 2)(x, kernel)
    with pytest.raises(ValueError, match='strides must be 1 or 2, got 3'):
        apply(name, 'auto', 3)(x, kernel)
    with pytest.raises(ValueError, match='must be square'):
        apply(name, 'auto', 2)(x, kernel[:3])
    with pytest.raises(ValueError, match='float32, got bfloat16'):
        apply(name, 'auto', 2)(x, kernel.astype(jnp.bfloat16))


@each_implementation
@each_conv
@pytest.mark.parametrize(('channels', 'k'), [(3, 4), (6, 4), (6, 3)])
def test_empty_batch_is_accepted(name, conv_impl, channels, k):
    y = apply(name, conv_impl, 2)(jnp.ones((0, 4, 4, channels)), jnp.ones((k, k, channels, 5)))
    assert y.shape == (0, *({'conv': (2, 2), 'conv_transpose': (8, 8)}[name]), 5)


LAYERS = [(layers.Conv, nn.Conv), (layers.ConvTranspose, nn.ConvTranspose)]


@pytest.mark.parametrize(('ours', 'theirs'), LAYERS)
@pytest.mark.parametrize(('k', 'strides', 'use_bias'), [(4, 2, True), (3, 1, False)])
def test_layers_equal_flax(ours, theirs, k, strides, use_bias):
    x = normal(0, 2, 6, 6, 3)
    own = ours(5, kernel_size=k, strides=strides, use_bias=use_bias, conv_impl='matmul')
    flax = theirs(5, (k, k), (strides, strides), use_bias=use_bias)
    variables = flax.init(jax.random.key(1), x)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(own.init, jax.random.key(1), x))
    assert shapes == jax.tree.map(jnp.shape, variables)
    variables = jax.tree.map(lambda a: a + 0.1, variables)  # The initial bias is 0.
    actual = jax.jit(own.apply)(variables, x)
    np.testing.assert_allclose(actual, flax.apply(variables, x), atol=3e-5)


@pytest.mark.parametrize('layer', [layers.Conv, layers.ConvTranspose])
def test_layers_compute_in_dtype_and_keep_float32_parameters(layer):
    x = normal(0, 1, 4, 4, 3)
    init = jax.jit(layer(2, dtype=jnp.bfloat16).init_with_output)
    y, variables = init(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}

"""Residual networks of SNGAN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import models
from dcgan_jax.configs import cifar10
from dcgan_jax.models import blocks as blocks_lib
from dcgan_jax.runtime.errors import UserError
from tests.small_networks import RNG, images, tiny
from tests.test_layers import loop_conv
from tests.test_models import count, random_variables, shapes

# Numbers of parameters (kernels, biases, norms) of Miyato et al. 2018, table 4 (32x32).
BLOCK_G = 2 * (9 * 256 * 256 + 256) + (256 * 256 + 256) + 2 * 2 * 256


SNGAN_G = (
    (128 * 4 * 4 * 256 + 4 * 4 * 256) + 3 * BLOCK_G + 2 * 256 + (9 * 256 * 3 + 3)
)  # fmt: skip


SNGAN_D = (
    (9 * 3 * 128 + 128) + (9 * 128 * 128 + 128) + (3 * 128 + 128)
    + 2 * (9 * 128 * 128 + 128) + (128 * 128 + 128)
    + 2 * 2 * (9 * 128 * 128 + 128)
    + (128 + 1)
)  # fmt: skip


RESIDUAL = {'block': 'residual', 'kernel_size': 3, 'use_bias': True}


def residual_config():
    config = cifar10.get_config()
    config.latent_dim = 128
    config.generator.update(
        RESIDUAL, base_features=256, features=(256, 256, 256), strides=(2, 2, 2, 1)
    )
    config.discriminator.update(
        RESIDUAL, features=(128, 128, 128, 128), strides=(2, 2, 1, 1), head='sum', norm='none',
        leaky_slope=0.0, spectral_norm=True,
    )  # fmt: skip
    return config


def test_residual_networks_for_32x32_have_published_parameter_counts():
    _, state = shapes(residual_config())
    assert count(state.generator.params) == SNGAN_G == 4_276_739
    assert count(state.discriminator.params) == SNGAN_D


@pytest.mark.parametrize(('side', 'base_size', 'blocks'), [(48, 6, 3), (64, 4, 4)])
def test_residual_networks_support_48_and_64_pixels(side, base_size, blocks):
    config = residual_config()
    config.generator.update(
        base_size=base_size, features=(256,) * blocks, strides=(2,) * blocks + (1,)
    )
    config.discriminator.update(features=(64,) * (blocks + 1), strides=(2,) * blocks + (1,))
    networks, state = shapes(config, (side, side, 3))
    made = jax.eval_shape(
        lambda s: networks.generator.apply(
            {'params': s.params, 'batch_stats': s.batch_stats}, jnp.zeros((2, 128)), train=False
        ),
        state.generator,
    )
    assert made.shape == (2, side, side, 3)


def conv(params, x):
    kernel = np.asarray(params['kernel'], np.float64)
    return loop_conv(x, kernel, 1) + np.asarray(params['bias'], np.float64)


def halved(x):
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


@pytest.mark.slow
def test_residual_discriminator_equals_numpy():
    (_, discriminator, _), _ = tiny(
        discriminator=RESIDUAL | {
            'features': (4, 4, 4), 'strides': (2, 2, 1), 'norm': 'none', 'leaky_slope': 0.0,
            'head': 'sum',
        }
    )  # fmt: skip
    variables = random_variables(discriminator, (1, 8, 8, 3))
    params, batch = variables['params'], images(2)
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    x = np.asarray(batch, np.float64)
    block = params['block_0']
    y = conv(block['conv_1'], relu(conv(block['conv_0'], x)))
    x = halved(y) + conv(block['shortcut'], halved(x))
    block = params['block_1']
    y = conv(block['conv_1'], relu(conv(block['conv_0'], relu(x))))
    x = halved(y) + halved(conv(block['shortcut'], x))
    block = params['block_2']
    x = x + conv(block['conv_1'], relu(conv(block['conv_0'], relu(x))))
    features = relu(x).sum(axis=(1, 2))
    expected = features @ np.asarray(params['logit']['kernel'], np.float64)
    expected = expected + np.asarray(params['logit']['bias'], np.float64)
    actual = discriminator.apply(variables, batch, train=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_residual_generator_equals_numpy():
    (generator, _, _), _ = tiny(
        generator=RESIDUAL | {
            'base_size': 4, 'base_features': 4, 'features': (4, 5), 'strides': (2, 1, 1),
        }
    )  # fmt: skip
    variables = random_variables(generator, (1, 5))
    params, stats = variables['params'], variables['batch_stats']
    z = RNG.normal(size=(2, 5))

    def norm_relu(x, params, stats):
        mean, var = (np.asarray(stats[s], np.float64) for s in ('mean', 'var'))
        scale, bias = (np.asarray(params[s], np.float64) for s in ('scale', 'bias'))
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) * scale + bias, 0)

    def twice(x):
        return x.repeat(2, axis=1).repeat(2, axis=2)

    project = params['project']
    x = z @ np.asarray(project['kernel'], np.float64) + np.asarray(project['bias'], np.float64)
    x = x.reshape(2, 4, 4, 4)
    for name, enlarge in (('block_0', twice), ('block_1', lambda x: x)):
        block, running = params[name], stats[name]
        y = enlarge(norm_relu(x, block['norm_0'], running['norm_0']))
        y = norm_relu(conv(block['conv_0'], y), block['norm_1'], running['norm_1'])
        x = conv(block['conv_1'], y) + conv(block['shortcut'], enlarge(x))
    x = norm_relu(x, params['norm_out'], stats['norm_out'])
    expected = np.tanh(conv(params['conv_2'], x))
    actual = generator.apply(variables, jnp.asarray(z, jnp.float32), train=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_upsample_repeats_and_downsample_averages():
    x = images(2)
    np.testing.assert_array_equal(
        blocks_lib.upsample(x, 2), np.asarray(x).repeat(2, 1).repeat(2, 2)
    )
    np.testing.assert_allclose(blocks_lib.downsample(blocks_lib.upsample(x, 2), 2), x, rtol=1e-6)
    np.testing.assert_allclose(
        blocks_lib.downsample(x, 2), halved(np.asarray(x)), rtol=1e-5, atol=1e-6
    )


def test_residual_discriminators_need_even_sides():
    config = residual_config()
    config.generator.update(base_size=3, features=(256, 256), strides=(2, 2, 1))
    config.discriminator.update(strides=(2, 2, 2, 1))
    with pytest.raises(UserError, match=r'strides.* 12'):
        models.build(config, (12, 12, 3))

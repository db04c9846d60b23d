"""Shapes, parameter counts and outputs of the networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import models, train_state
from dcgan_jax.configs import cifar10, cifar10_dense_stem, cifar10_tutorial, quickstart
from dcgan_jax.runtime.errors import UserError
from tests.test_layers import loop_conv, loop_conv_transpose

# Kernels [k, k, in, out], biases and BatchNorm scale + offset, layer by layer.
CIFAR10_G = (
    100 * 4 * 4 * 512 + 2 * 512
    + 4 * 4 * 512 * 256 + 2 * 256
    + 4 * 4 * 256 * 128 + 2 * 128
    + 4 * 4 * 128 * 3
)  # fmt: skip
CIFAR10_D = (
    4 * 4 * 3 * 128
    + 4 * 4 * 128 * 256 + 2 * 256
    + 4 * 4 * 256 * 512 + 2 * 512
    + 4 * 4 * 512
)  # fmt: skip
TUTORIAL_G = (
    100 * 8 * 8 * 256 + 2 * 256
    + 5 * 5 * 256 * 128 + 2 * 128
    + 5 * 5 * 128 * 64 + 2 * 64
    + 5 * 5 * 64 * 3
)  # fmt: skip
TUTORIAL_D = (5 * 5 * 3 * 64 + 64) + (5 * 5 * 64 * 128 + 128) + (8 * 8 * 128 + 1)
DENSE_STEM_G = (
    (100 * 128 + 128) + (128 * 128 + 128) + (128 * 100 + 100)
    + (100 * 8 * 8 * 256 + 8 * 8 * 256)
    + (4 * 4 * 256 * 128 + 128) + 2 * 128
    + (4 * 4 * 128 * 64 + 64) + 2 * 64
    + (4 * 4 * 64 * 3 + 3)
)  # fmt: skip
DENSE_STEM_D = (
    (4 * 4 * 3 * 64 + 64) + (4 * 4 * 64 * 128 + 128) + (4 * 4 * 128 * 256 + 256) + (4 * 4 * 256 + 1)
)


def shapes(config, image_shape=(32, 32, 3)):
    networks = models.build(config, image_shape)
    return networks, jax.eval_shape(lambda: train_state.create(config, networks, image_shape))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ('module', 'generator', 'discriminator'),
    [
        (cifar10, CIFAR10_G, CIFAR10_D),
        (cifar10_tutorial, TUTORIAL_G, TUTORIAL_D),
        (cifar10_dense_stem, DENSE_STEM_G, DENSE_STEM_D),
    ],
)
def test_parameter_counts(module, generator, discriminator):
    _, state = shapes(module.get_config())
    assert count(state.generator.params) == generator
    assert count(state.discriminator.params) == discriminator


@pytest.mark.parametrize(
    ('base_size', 'strides', 'image_shape'),
    [
        (4, (2, 2, 2), (32, 32, 3)),
        (7, (1, 2, 2), (28, 28, 1)),
        (8, (2, 2, 2), (64, 64, 3)),
        (9, (1, 2, 2), (36, 36, 3)),
    ],
)
def test_networks_support_several_image_sizes(base_size, strides, image_shape):
    config = quickstart.get_config()
    config.generator.base_size, config.generator.strides = base_size, strides
    networks, state = shapes(config, image_shape)
    images = jax.eval_shape(
        lambda s: networks.generator.apply(
            {'params': s.params, 'batch_stats': s.batch_stats}, jnp.zeros((5, 100)), train=False
        ),
        state.generator,
    )
    assert images.shape == (5, *image_shape)
    logits = jax.eval_shape(
        lambda s: networks.discriminator.apply(
            {'params': s.params, 'batch_stats': s.batch_stats},
            jnp.zeros((5, *image_shape)),
            train=False,
        ),
        state.discriminator,
    )
    assert logits.shape == (5, 1)


def test_width_scales_every_channel():
    config = cifar10.get_config()
    config.generator.width = 0.25
    _, state = shapes(config)
    params = state.generator.params
    assert params['project']['kernel'].shape == (100, 4 * 4 * 128)
    assert params['conv_0']['kernel'].shape == (4, 4, 128, 64)
    assert params['conv_2']['kernel'].shape == (4, 4, 32, 3)  # The image channels are not scaled.


def test_initial_weights_have_the_published_distribution():
    config = cifar10.get_config()
    networks = models.build(config, (32, 32, 3))
    state = jax.jit(lambda: train_state.create(config, networks, (32, 32, 3)))()
    kernel = np.asarray(state.generator.params['conv_0']['kernel'])
    assert kernel.mean() == pytest.approx(0.0, abs=1e-4)
    assert kernel.std() == pytest.approx(0.02, rel=1e-2)
    scale = np.asarray(state.discriminator.params['norm_2']['scale'])
    assert scale.mean() == pytest.approx(1.0, abs=0.01)
    assert scale.std() == pytest.approx(0.02, rel=0.2)


def test_unreachable_image_size_is_rejected():
    with pytest.raises(UserError, match=r'32x32.*48x48'):
        models.build(cifar10.get_config(), (48, 48, 3))


def test_discriminator_with_too_many_stages_is_rejected():
    config = cifar10.get_config()
    config.discriminator.features = (8,) * 6
    config.discriminator.strides = (2,) * 6
    with pytest.raises(UserError, match=r'discriminator\.strides'):
        models.build(config, (32, 32, 3))


def test_bfloat16_networks_have_float32_parameters_images_and_logits():
    config = quickstart.get_config()
    config.dtype = 'bfloat16'
    networks, state = shapes(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.generator.params)} == {
        jnp.dtype('float32')
    }
    images = jax.eval_shape(
        lambda s: networks.generator.apply(
            {'params': s.params, 'batch_stats': s.batch_stats}, jnp.zeros((2, 100)), train=False
        ),
        state.generator,
    )
    assert images.dtype == jnp.float32
    logits, stats = jax.eval_shape(
        lambda s: networks.discriminator.apply(
            {'params': s.params, 'batch_stats': s.batch_stats},
            jnp.zeros((2, 32, 32, 3)),
            train=True,
            mutable=['batch_stats'],
        ),
        state.discriminator,
    )
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(stats)} == {jnp.dtype('float32')}


def numpy_forward(variables, x, layers_of):
    """Apply layers, given as (type, name or function), in float64."""
    params, stats = variables['params'], variables['batch_stats']
    for kind, what in layers_of:
        if kind == 'dense':
            layer = params[what]
            x = x.reshape(len(x), -1) @ np.asarray(layer['kernel'], np.float64) + np.asarray(
                layer.get('bias', 0.0), np.float64
            )
        elif kind in ('conv', 'conv_transpose'):
            name, stride = what
            loop = loop_conv if kind == 'conv' else loop_conv_transpose
            x = loop(x, np.asarray(params[name]['kernel'], np.float64), stride)
            x = x + np.asarray(params[name].get('bias', 0.0), np.float64)
        elif kind == 'norm':
            name, epsilon = what
            mean, var = (np.asarray(stats[name][s], np.float64) for s in ('mean', 'var'))
            scale, bias = (np.asarray(params[name][s], np.float64) for s in ('scale', 'bias'))
            x = (x - mean) / np.sqrt(var + epsilon) * scale + bias
        else:
            x = what(x)
    return x


def random_variables(module, shape, labels=None):
    """Return random variables, including running statistics."""
    variables = module.init(jax.random.key(0), jnp.ones(shape), labels, train=False)
    rng = np.random.default_rng(1)

    def draw(leaf):
        signs = rng.choice([-1, 1], leaf.shape) if leaf.ndim > 1 else 1  # Variances are positive.
        return jnp.asarray(signs * rng.uniform(0.1, 0.6, leaf.shape), leaf.dtype)

    return jax.tree.map(draw, {'batch_stats': {}, **variables})


def test_generator_equals_numpy():
    config = cifar10_dense_stem.get_config()
    config.conv_impl = 'xla'
    config.generator.update(
        base_size=2, base_features=4, features=(3,), strides=(1, 2), stem_features=(5,),
        stem_norm=True, leaky_slope=0.13, norm_epsilon=0.07,
    )  # fmt: skip
    config.discriminator.update(features=(4,), strides=(2,))
    generator = models.build(config, (4, 4, 3)).generator
    variables = random_variables(generator, (1, 100))
    z = np.random.default_rng(0).normal(size=(2, 100)) / 10
    leaky = ('apply', lambda x: np.where(x > 0, x, 0.13 * x))
    expected = numpy_forward(
        variables, z,
        [
            ('dense', 'stem_0'), leaky,
            ('dense', 'project'), ('apply', lambda x: x.reshape(2, 2, 2, 4)),
            ('norm', ('project_norm', 0.07)), leaky,
            ('conv_transpose', ('conv_0', 1)), ('norm', ('norm_0', 0.07)), leaky,
            ('conv_transpose', ('conv_1', 2)), ('apply', np.tanh),
        ],
    )  # fmt: skip
    actual = generator.apply(variables, jnp.asarray(z, jnp.float32), train=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_discriminator_equals_numpy():
    config = cifar10.get_config()
    config.conv_impl = 'xla'
    config.discriminator.update(
        features=(3, 4), strides=(2, 1), kernel_size=3, leaky_slope=0.17, norm_epsilon=0.09,
        use_bias=True, dropout_rate=0.5,
    )  # fmt: skip
    config.generator.update(base_size=1, features=(2,), strides=(2, 2))
    discriminator = models.build(config, (4, 4, 3)).discriminator
    variables = random_variables(discriminator, (1, 4, 4, 3))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3))
    leaky = ('apply', lambda x: np.where(x > 0, x, 0.17 * x))
    expected = numpy_forward(
        variables, images,
        [
            ('conv', ('conv_0', 2)), leaky,
            ('conv', ('conv_1', 1)), ('norm', ('norm_1', 0.09)), leaky,
            ('dense', 'logit'),
        ],
    )  # fmt: skip
    actual = discriminator.apply(variables, jnp.asarray(images, jnp.float32), train=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('use_bias', [False, True])
def test_discriminator_without_biases_is_invariant_to_contrast(use_bias):
    """BatchNorm removes the scale, with which convolutions and LeakyReLU are homogeneous."""
    config = cifar10.get_config()
    config.discriminator.update(features=(4, 4), strides=(2, 2), use_bias=use_bias)
    config.generator.update(base_size=2, features=(2,), strides=(2, 2))
    discriminator = models.build(config, (8, 8, 3)).discriminator
    variables = random_variables(discriminator, (1, 8, 8, 3))
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)), jnp.float32)

    def logits_of(images):
        return discriminator.apply(variables, images, train=True, mutable=['batch_stats'])[0]

    difference = np.abs(logits_of(images / 2) - logits_of(images)).max()
    assert difference > 0.1 if use_bias else difference < 1e-3


def test_dropout_rate_during_training_only():
    config = cifar10.get_config()
    config.discriminator.update(features=(64,), strides=(1,), dropout_rate=0.3, norm='none')
    discriminator = models.build(config, (32, 32, 3)).discriminator
    variables = discriminator.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)

    def dropped(train):
        _, seen = discriminator.apply(
            variables, images, train=train, rngs={'dropout': jax.random.key(1)},
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        )  # fmt: skip
        (after,) = jax.tree.leaves(seen['intermediates']['Dropout_0'])
        return float(jnp.mean(after == 0))

    assert dropped(train=True) == pytest.approx(0.3, abs=0.01)
    assert dropped(train=False) == 0

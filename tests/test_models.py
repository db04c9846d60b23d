"""Shapes and parameter counts of every config's networks, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10, cifar10_dense_stem, cifar10_tutorial, quickstart
from dcgan_jax import models, train_state
from dcgan_jax.errors import UserError

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
def test_one_module_makes_every_size(base_size, strides, image_shape):
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
    assert params['conv_2']['kernel'].shape == (4, 4, 32, 3)  # the image keeps its channels


def test_weights_are_drawn_as_the_paper_says():
    config = cifar10.get_config()
    networks = models.build(config, (32, 32, 3))
    state = jax.jit(lambda: train_state.create(config, networks, (32, 32, 3)))()
    kernel = np.asarray(state.generator.params['conv_0']['kernel'])
    assert kernel.mean() == pytest.approx(0.0, abs=1e-4)
    assert kernel.std() == pytest.approx(0.02, rel=1e-2)
    scale = np.asarray(state.discriminator.params['norm_2']['scale'])
    assert scale.mean() == pytest.approx(1.0, abs=0.01)
    assert scale.std() == pytest.approx(0.02, rel=0.2)


def test_an_image_size_that_the_stages_cannot_reach_is_refused():
    with pytest.raises(UserError, match=r'makes 32x32 images.*data set has 48x48'):
        models.build(cifar10.get_config(), (48, 48, 3))


def test_a_discriminator_that_shrinks_too_far_is_refused():
    config = cifar10.get_config()
    config.discriminator.features = (8,) * 6
    config.discriminator.strides = (2,) * 6
    with pytest.raises(UserError, match='64 times'):
        models.build(config, (32, 32, 3))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters_and_logits():
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
    assert images.dtype == jnp.bfloat16
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

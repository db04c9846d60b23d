"""bfloat16 may change rounding, but not sums over a batch or over positions.

bfloat16 has 8 significant bits. A sum of many terms of the same sign that is accumulated in
bfloat16 stops growing at 256 times a term, so that gradients of biases, for example, would be many
times too small.
"""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import program
from dcgan_jax import augmentation, models, train_state
from dcgan_jax.data import degradations
from dcgan_jax.models import attention, layers
from tests.conftest import slow_except

CONFIGS = program.config_names()
BATCH = 32
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(0.2, 1.0, (BATCH, 32, 32, 3)), jnp.float32)
LABELS = jnp.asarray(np.arange(BATCH) % 10, jnp.int32)


def positive(tree):
    """Return positive variables, so that gradients are sums of terms of the same sign."""
    rng = np.random.default_rng(0)
    constants = {'scale': 1.0, 'bias': 0.1, 'gamma': 0.1, 'mean': 0.0, 'var': 1.0}

    def draw(path, leaf):
        name = getattr(path[-1], 'key', None)
        if name in constants:
            return jnp.full(leaf.shape, constants[name], leaf.dtype)
        num_inputs = math.prod(leaf.shape[:-1]) if name in ('kernel', 'embedding') else 10
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape) / num_inputs, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def gradients(name, dtype):
    """Return the gradients of the mean outputs of a config's networks at an eighth of the width."""
    config = importlib.import_module(f'dcgan_jax.configs.{name}').get_config()
    config.generator.width = config.discriminator.width = 0.125
    config.conv_impl = 'xla'  # As on accelerators.
    config.dtype = dtype
    if config.text.embedder:
        config.text.embedder = 'trigrams'
    networks = models.build(config, (32, 32, 3), 10)
    state = jax.eval_shape(lambda: train_state.create(config, networks, (32, 32, 3)))
    given = jnp.abs(degradations.sample_inputs(jax.random.key(1), config, IMAGES))

    def grad(network, state, given):
        statistics = positive(state.statistics)

        def mean(params):
            variables = {'params': params, **statistics}
            return jnp.mean(network.apply(variables, given, LABELS, train=False))

        return jax.jit(jax.grad(mean))(positive(state.params))

    return {
        'generator': grad(networks.generator, state.generator, given),
        'discriminator': grad(networks.discriminator, state.discriminator, IMAGES),
    }


DEFAULT = 'cifar10', 'cifar10_tutorial'


@pytest.mark.parametrize('name', slow_except(CONFIGS, *DEFAULT))
def test_all_gradients_are_close_to_float32(name):
    expected, actual = (
        jax.tree_util.tree_leaves_with_path(gradients(name, dtype))
        for dtype in ('float32', 'bfloat16')
    )
    for (path, x), (_, y) in zip(expected, actual, strict=True):
        x, y = (np.asarray(leaf, np.float64).ravel() for leaf in (x, y))
        if not x.any():  # For example, embeddings of classes that are not in the batch.
            continue
        where = jax.tree_util.keystr(path)
        assert np.linalg.norm(y - x) <= 0.1 * np.linalg.norm(x), where
        assert x @ y >= 0.99 * np.linalg.norm(x) * np.linalg.norm(y), where


@pytest.mark.parametrize('gamma', slow_except([0.0, 0.5], 0.5))
def test_attention_gradients_are_close_to_float32(gamma):
    x = jnp.asarray(RNG.uniform(0.5, 1.5, (32, 16, 16, 16)), jnp.float32)

    def grad(dtype):
        init = jax.nn.initializers.uniform(0.1)
        dense = functools.partial(layers.Dense, dtype=dtype, kernel_init=init)
        module = attention.SelfAttention(dense)
        params = module.init(jax.random.key(0), x.astype(dtype))['params']
        params = {**params, 'gamma': jnp.float32(gamma)}
        total = lambda params: jnp.sum(  # noqa: E731
            module.apply({'params': params}, x.astype(dtype)).astype(jnp.float32)
        )
        return jax.grad(total)(params)

    expected, actual = grad(jnp.float32), grad(jnp.bfloat16)
    np.testing.assert_allclose(actual['gamma'], expected['gamma'], rtol=0.02)
    for name in ('value', 'out'):
        np.testing.assert_allclose(
            actual[name]['kernel'], expected[name]['kernel'], rtol=0.05, err_msg=name
        )


@pytest.mark.slow
def test_logits_with_a_large_bias_are_distinct():
    config = importlib.import_module('dcgan_jax.configs.cifar10_sngan').get_config()
    config.discriminator.update(features=(8, 16), strides=(2, 2), kernel_sizes=(3, 3))
    config.loss.rotation_weight, config.conv_impl, config.dtype = 1.0, 'xla', 'bfloat16'
    discriminator = models.build(config, (32, 32, 3)).discriminator
    init = jax.jit(lambda key: discriminator.init(key, jnp.zeros((1, 32, 32, 3)), train=False))
    variables = init(jax.random.key(0))
    params = dict(variables['params'])
    for head in ('logit', 'rotation'):
        params[head] = {**params[head], 'bias': params[head]['bias'] + 10.0}
    images = jnp.asarray(RNG.uniform(-1, 1, (64, 32, 32, 3)), jnp.float32)
    logits, sown = discriminator.apply(
        {'params': params, 'spectral_stats': variables['spectral_stats']},
        images,
        train=False,
        mutable=['rotation'],
    )
    (rotation_logits,) = sown['rotation']['logits']
    assert (logits.dtype, rotation_logits.dtype) == (jnp.float32, jnp.float32)
    assert len(np.unique(logits)) > 60  # There are 64 logits.
    assert len(np.unique(rotation_logits)) > 250  # There are 256 rotation logits.


def test_color_augmentation_in_bfloat16_is_close_to_float32():
    images = jnp.asarray(RNG.uniform(-1, 1, (64, 16, 16, 3)), jnp.bfloat16)
    key = jax.random.key(0)
    expected = augmentation.color(key, images.astype(jnp.float32))
    actual = augmentation.color(key, images)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=2**-8, atol=2**-8)


def test_minibatch_stddev_gradient_is_close_to_float32():
    x = jnp.asarray(RNG.uniform(0, 1, (32, 16, 16, 8)), jnp.float32)

    def grad(dtype):
        def total(x):
            return jnp.sum(attention.minibatch_stddev(x.astype(dtype), 8)[..., -1:] * 1.0)

        return jax.grad(lambda x: total(x).astype(jnp.float32))(x)

    expected, actual = (np.asarray(grad(t), np.float64) for t in (jnp.float32, jnp.bfloat16))
    assert np.linalg.norm(actual - expected) <= 0.02 * np.linalg.norm(expected)

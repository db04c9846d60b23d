"""Variants of the networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import models
from dcgan_jax.configs import cifar10
from dcgan_jax.models import attention, layers
from dcgan_jax.models import blocks as blocks_lib
from dcgan_jax.runtime.errors import ConfigError, UserError
from tests.small_networks import RNG, images, initial, tiny
from tests.test_models import random_variables


def test_conditional_generator_has_scales_and_shifts_per_class():
    (generator, _, _), _ = tiny(conditional=True)
    variables = random_variables(generator, (1, 5), jnp.zeros(1, jnp.int32))
    z = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    by_class = generator.apply(variables, z, jnp.arange(4), train=False)
    # An unconditional generator with the scales and shifts of class 2 generates the same images.
    plain, _ = tiny()
    params = dict(variables['params'])
    for name in ('project_norm', 'norm_0'):
        scale, shift = (params[name][part]['embedding'][2] for part in ('scale', 'shift'))
        params[name] = {'scale': scale, 'bias': shift}
    expected = plain.generator.apply({**variables, 'params': params}, z, train=False)
    np.testing.assert_allclose(by_class[2], expected[2], rtol=1e-4, atol=1e-5)
    assert np.abs(by_class[1] - expected[1]).max() > 0.01


def test_projection_discriminator_adds_the_inner_product_with_the_class():
    (_, discriminator, _), _ = tiny(conditional=True, discriminator={'norm': 'none'})
    variables = random_variables(discriminator, (1, 8, 8, 3), jnp.zeros(1, jnp.int32))
    batch, labels = images(3), jnp.asarray([3, 0, 3])
    logits = discriminator.apply(variables, batch, labels, train=False)
    plain, _ = tiny(discriminator={'norm': 'none'})
    params = {k: v for k, v in variables['params'].items() if k != 'classes'}
    kernel = np.asarray(params['logit']['kernel'], np.float64)
    bare = np.asarray(plain.discriminator.apply({'params': params}, batch, train=False))
    # Equivalently, the class embedding is added to the kernel of the dense layer.
    table = np.asarray(variables['params']['classes']['embedding'], np.float64)
    for index, label in enumerate(labels):
        moved = {**params, 'logit': {'kernel': jnp.asarray(kernel + table[label][:, None],
                                                           jnp.float32)}}  # fmt: skip
        expected = plain.discriminator.apply({'params': moved}, batch, train=False)[index]
        np.testing.assert_allclose(logits[index], expected, rtol=1e-4)
        assert not np.allclose(logits[index], bare[index], rtol=1e-3)


def test_conditional_networks_need_labeled_data():
    config = cifar10.get_config()
    config.conditional = True
    with pytest.raises(UserError, match='class labels'):
        models.build(config, (32, 32, 3))


# Residual networks.


# Attention, minibatch statistics, packing and parallel kernels.


def test_self_attention_is_initially_the_identity_and_equals_numpy():
    module = attention.SelfAttention(
        functools.partial(layers.Dense, kernel_init=jax.nn.initializers.normal(1.0))
    )
    x = jnp.asarray(RNG.normal(size=(2, 4, 4, 16)), jnp.float32)
    params = module.init(jax.random.key(0), x)['params']
    np.testing.assert_array_equal(module.apply({'params': params}, x), x)

    params = {**params, 'gamma': jnp.float32(0.7)}
    flat = np.asarray(x, np.float64).reshape(2, 16, 16)
    kernel = {k: np.asarray(v['kernel'], np.float64) for k, v in params.items() if k != 'gamma'}
    pool = lambda y: y.reshape(2, 2, 2, 2, 2, -1).max(axis=(2, 4)).reshape(2, 4, -1)  # noqa: E731
    queries, keys, values = (
        flat @ kernel['query'], pool(flat @ kernel['key']), pool(flat @ kernel['value'])
    )  # fmt: skip
    weights = np.exp(queries @ keys.transpose(0, 2, 1))
    weights /= weights.sum(axis=2, keepdims=True)
    expected = flat + 0.7 * (weights @ values @ kernel['out'])
    actual = module.apply({'params': params}, x).reshape(2, 16, 16)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_attention_follows_the_selected_stages():
    (generator, discriminator, _), _ = tiny(
        generator={'attention': (0,)}, discriminator={'attention': (0, 1)}
    )
    assert 'attention_0' in initial(generator, jnp.ones((1, 5)))['params']
    params = initial(discriminator, images(1))['params']
    assert params['attention_0']['out']['kernel'].shape == (3, 6)
    assert params['attention_1']['out']['kernel'].shape == (4, 8)


def test_minibatch_stddev_equals_numpy():
    x = RNG.normal(size=(8, 2, 2, 3))
    y = np.asarray(attention.minibatch_stddev(jnp.asarray(x, jnp.float32), 4))
    np.testing.assert_allclose(y[..., :3], x, rtol=1e-6)
    for first in range(2):  # The groups are the images with even and odd indices.
        expected = x[first::2].std(axis=0).mean()
        np.testing.assert_allclose(y[first::2, ..., 3], expected, rtol=1e-4)
    copies = attention.minibatch_stddev(jnp.ones((8, 2, 2, 3)), 4)
    np.testing.assert_allclose(copies[..., 3], 1e-4, rtol=1e-3)
    assert attention.minibatch_stddev(jnp.ones((2, 2, 2, 3)), 4).shape == (2, 2, 2, 4)


def test_packed_images_share_a_logit():
    (_, discriminator, _), _ = tiny(discriminator={'pack': 2, 'norm': 'none'})
    batch = images(6)
    variables = initial(discriminator, batch)
    assert variables['params']['conv_0']['kernel'].shape == (4, 4, 6, 6)
    logits = discriminator.apply(variables, batch, train=False)
    assert logits.shape == (3, 1)
    other = discriminator.apply(variables, batch.at[3].set(0.0), train=False)
    np.testing.assert_array_equal(np.asarray(logits != other)[:, 0], [False, True, False])
    # The images of a pack are concatenated along the channels.
    both = jnp.concatenate([batch[::2], batch[1::2]], axis=-1)
    alone = discriminator.clone(pack=1).apply(variables, both, train=False)
    np.testing.assert_allclose(logits, alone, rtol=1e-5)


def test_branches_divide_the_output_channels():
    (generator, discriminator, _), _ = tiny(
        generator={'branches': (2, 4)}, discriminator={'branches': (1, 3, 5), 'norm': 'none'}
    )
    variables = random_variables(discriminator, (1, 8, 8, 3))
    _, seen = discriminator.apply(
        variables, images(1), train=False, capture_intermediates=True, mutable=['intermediates']
    )
    maps = [seen['intermediates']['conv_1'][f'branch_{i}']['__call__'][0] for i in range(3)]
    assert [m.shape[-1] for m in maps] == [3, 3, 2]  # 8 channels in total.
    sizes = [variables['params']['conv_1'][f'branch_{i}']['kernel'].shape[0] for i in range(3)]
    assert sizes == [1, 3, 5]
    params = initial(generator, jnp.ones((1, 5)))['params']
    assert params['conv_0']['branch_1']['kernel'].shape == (4, 4, 6, 4)
    # The branches have 2 and 1 of the 3 image channels.
    assert params['conv_1']['branch_0']['kernel'].shape == (2, 2, 8, 2)


@pytest.mark.parametrize(('features', 'kernel_size'), [(8, 1), (2, 4)])
def test_convolutions_with_1x1_kernels_or_few_channels_have_no_branches(features, kernel_size):
    module = blocks_lib.ParallelConv(features, kernel_size, 1, layers.Conv, branches=(1, 3, 5))
    params = jax.eval_shape(module.init, jax.random.key(0), images(1))['params']
    shapes = [leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) > 1]
    assert shapes == [(kernel_size, kernel_size, 3, features)]


def test_kernel_sizes_are_set_per_convolution():
    (_, discriminator, _), _ = tiny(
        discriminator={'kernel_sizes': (3, 4), 'strides': (1, 2), 'head': 'sum'}
    )
    params = initial(discriminator, images(1))['params']
    assert [params[f'conv_{i}']['kernel'].shape[0] for i in range(2)] == [3, 4]
    assert params['logit']['kernel'].shape == (8, 1)


@pytest.mark.parametrize(
    ('changes', 'field'),
    [
        ({'discriminator': {'kernel_sizes': (3,)}}, 'discriminator.kernel_sizes'),
        ({'generator': {'kernel_sizes': (3,)}}, 'generator.kernel_sizes'),
        ({'discriminator': {'attention': (2,)}}, 'discriminator.attention'),
        ({'discriminator': {'pack': 3}}, 'batch_size'),
        ({'discriminator': {'minibatch_stddev': 3}}, 'batch_size'),
        ({'loss': {'name': 'hinge', 'label_smoothing': 0.1}}, 'loss.label_smoothing'),
        ({'loss': {'generator_rotation_weight': 0.2}}, 'loss.generator_rotation_weight'),
        (
            {'loss': {'rotation_weight': 1.0}, 'discriminator': {'pack': 2}},
            'loss.rotation_weight',
        ),
        ({'penalty': {'wgan_gp': 10.0}}, 'penalty.wgan_gp'),
        ({'augment': {'ada_target': 0.6}}, 'augment.policy'),
        (
            {
                'augment': {'ada_target': 0.6, 'policy': ('color',)},
                'loss': {'name': 'wasserstein'},
            },
            'loss.name',
        ),
        ({'optimizer': {'generator': {'momentum': 0.9}}}, 'optimizer.generator.momentum'),
        (
            {'penalty': {'wgan_gp': 1.0}, 'discriminator': {'pack': 2, 'norm': 'none'}},
            'discriminator.pack',
        ),
        ({'conditional': True, 'generator': {'norm': 'none'}}, 'generator.norm'),
        ({'conditional': True, 'discriminator': {'pack': 2}}, 'discriminator.pack'),
        ({'text': {'embedder': 'trigrams'}}, 'conditional'),
        ({'text': {'templates': ('a photo',)}}, 'text.templates'),
        (
            {
                'discriminator': {'attention': (1,), 'strides': (2, 2), 'features': (4, 4)},
                'generator': {
                    'base_size': 1,
                    'strides': (2, 2, 2),
                    'features': (4, 4),
                    'attention': (2,),
                },
            },
            'generator.attention',
        ),
    ],
    ids=str,
)
def test_incompatible_fields_are_rejected(changes, field):
    with pytest.raises(ConfigError) as error:
        tiny(**changes)
    assert field in error.value.fields


def test_discriminator_with_too_many_strides_is_rejected():
    layers = {'block': 'residual', 'features': (4,) * 4, 'strides': (2,) * 4}
    with pytest.raises(UserError, match='8x8 images by 16'):
        tiny(discriminator=layers)

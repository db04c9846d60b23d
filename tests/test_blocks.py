"""Variants of the networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import config as config_lib
from dcgan_jax import models, train_state
from dcgan_jax.configs import cifar10
from dcgan_jax.models import attention, layers, norms
from dcgan_jax.models import blocks as blocks_lib
from dcgan_jax.models.conditioning import ConditionalEmbedding
from dcgan_jax.runtime.errors import ConfigError, UserError
from tests.conftest import slow_except
from tests.test_layers import loop_conv
from tests.test_models import count, random_variables, shapes

RNG = np.random.default_rng(0)


def tiny(conditional=False, **changes):
    """Return networks for 8x8 images, and their config."""
    config = cifar10.get_config()
    config.conv_impl, config.latent_dim, config.conditional = 'xla', 5, conditional
    config.generator.update(base_size=2, base_features=6, features=(8,), strides=(2, 2))
    config.discriminator.update(features=(6, 8), strides=(2, 2))
    for name, fields in changes.items():
        config[name].update(fields)
    config_lib.validate(config)
    return models.build(config, (8, 8, 3), num_classes=4), config


def images(count):
    return jnp.asarray(RNG.uniform(-1, 1, (count, 8, 8, 3)), jnp.float32)


def initial(module, *inputs):
    return module.init(jax.random.key(0), *inputs, train=False)


# Spectral normalization.


@pytest.mark.parametrize(
    'layer', slow_except(['conv', 'conv_transpose', 'dense', 'embed'], 'conv', 'embed')
)
def test_spectral_norm_divides_by_the_largest_singular_value(layer):
    module, x = {
        'conv': (layers.Conv(7, spectral_norm=True), jnp.ones((1, 8, 8, 3))),
        'conv_transpose': (layers.ConvTranspose(7, spectral_norm=True), jnp.ones((1, 8, 8, 3))),
        'dense': (layers.Dense(7, spectral_norm=True), jnp.ones((1, 12))),
        'embed': (ConditionalEmbedding(4, 9, spectral_norm=True), jnp.zeros(1, jnp.int32)),
    }[layer]
    variables = module.init(jax.random.key(0), x)
    (kernel,) = (leaf for leaf in jax.tree.leaves(variables['params']) if leaf.ndim > 1)
    singular = np.linalg.svd(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]))[1]

    def norm(variables):
        """Return the estimated norm: outputs of the plain layer divided by normalized outputs."""
        plain = module.clone(spectral_norm=False)
        bias_free = {'params': {**variables['params']}}
        ratio = plain.apply(bias_free, x) / module.apply(variables, x)
        return float(jnp.median(ratio))

    for _ in range(60):
        _, updated = module.apply(variables, x, mutable=['spectral_stats'])
        variables = {**variables, **updated}
    assert norm(variables) == pytest.approx(singular[0], rel=1e-3)
    _, updated = module.apply(variables, x, mutable=['batch_stats'])
    assert 'spectral_stats' not in updated


def test_spectral_norm_gradient_equals_the_paper():
    """Miyato et al. 2018, eq. 12: (dL/dW' - <dL/dW', W'> u v^T) / sigma at the singular vectors."""
    module, x = layers.Dense(3, use_bias=False, spectral_norm=True), images(1).reshape(1, -1)[:, :4]
    variables = module.init(jax.random.key(1), x)
    for _ in range(200):
        variables |= module.apply(variables, x, mutable=['spectral_stats'])[1]
    target = RNG.normal(size=(1, 3))

    def loss(params):
        y = module.apply({**variables, 'params': params}, x)
        return jnp.sum(y * jnp.asarray(target, jnp.float32))

    kernel = np.asarray(variables['params']['kernel'], np.float64)
    u, s, vt = np.linalg.svd(kernel)
    outer = np.outer(u[:, 0], vt[0])
    free = np.asarray(x, np.float64).T @ target
    expected = (free - np.sum(free * kernel / s[0]) * outer) / s[0]
    actual = jax.grad(loss)(variables['params'])['kernel']
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


# Normalization.


@pytest.mark.parametrize(
    ('norm', 'axes'),
    [('batch', (0, 1, 2)), ('layer', (1, 2, 3)), ('instance', (1, 2))],
)
def test_norms_normalize_over_their_axes(norm, axes):
    """Compare with NumPy on the output of D's second convolution."""
    config = {'norm': norm, 'norm_epsilon': 0.01, 'features': (6, 8), 'weight_init': 'he_normal'}
    (_, discriminator, _), _ = tiny(discriminator=config)
    variables = initial(discriminator, images(1))
    _, seen = discriminator.apply(
        variables, images(5), train=True, mutable=['batch_stats', 'intermediates'],
        capture_intermediates=True,
    )  # fmt: skip
    kept = seen['intermediates']
    before = np.asarray(kept['conv_1']['__call__'][0], np.float64)
    after = np.asarray(kept['norm_1']['__call__'][-1], np.float64)
    mean, var = (f(axis=axes, keepdims=True) for f in (before.mean, before.var))
    np.testing.assert_allclose(after, (before - mean) / np.sqrt(var + 0.01), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('norm', 'shape', 'axes'),
    [
        ('batch', (64, 8, 8, 4), (0, 1, 2)),
        ('layer', (4, 16, 16, 8), (1, 2, 3)),
        ('instance', (4, 32, 32, 4), (1, 2)),
        ('group', (4, 16, 16, 4), (1, 2, 3)),
    ],
)
@pytest.mark.parametrize('mean', [0.0, 100.0, 1000.0])
def test_norms_are_accurate_for_large_means(norm, shape, axes, mean):
    """Computed as E[x^2] - E[x]^2, the variance would be off by 2.6% at a mean of 1,000."""
    x = RNG.normal(mean, 1.0, shape).astype(np.float32)
    module = norms.Norm(norm, use_running_average=False, momentum=0.9, epsilon=1e-5)
    variables = module.init(jax.random.key(0), x)
    actual, _ = module.apply(variables, x, mutable=['batch_stats'])
    wide = x.astype(np.float64)
    apart = wide - wide.mean(axis=axes, keepdims=True)
    expected = apart / np.sqrt(np.square(apart).mean(axis=axes, keepdims=True) + 1e-5)
    # float32 represents x with an error of 6e-8 times the mean.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 + 2e-7 * mean)


@pytest.mark.parametrize(('channels', 'groups'), [(8, 2), (18, 2), (64, 16), (192, 32), (7, 1)])
def test_group_norm_has_groups_of_at_least_four_channels(channels, groups):
    (_, discriminator, _), _ = tiny(
        discriminator={'norm': 'group', 'features': (6, channels), 'weight_init': 'he_normal'}
    )
    variables = initial(discriminator, images(1))
    _, seen = discriminator.apply(variables, images(2), train=False, capture_intermediates=True,
                                  mutable=['intermediates'])  # fmt: skip
    after = np.asarray(seen['intermediates']['norm_1']['__call__'][-1])
    grouped = after.reshape(2, 4, groups, channels // groups)
    np.testing.assert_allclose(grouped.mean(axis=(1, 3)), 0, atol=1e-5)
    assert np.abs(after.mean(axis=(1, 2))).max() > 0.1  # Means of single channels are not 0.


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'generator': {'norm': 'instance', 'base_size': 1, 'features': (8, 8)}},
            "norm='instance' .* 1x1 pixels and 6 channels .*Generator",
        ),
        (
            {
                'generator': {
                    'block': 'residual',
                    'norm': 'instance',
                    'base_size': 1,
                    'features': (8, 8),
                }
            },
            r'1x1 pixels and 6 channels .*\(Generator, block_0/norm_0\)',
        ),
        (
            {'discriminator': {'norm': 'instance', 'features': (6, 8, 8)}},
            r'1x1 pixels and 8 channels .*\(Discriminator, norm_2\)',
        ),
        (
            {'discriminator': {'norm': 'layer', 'features': (6, 8, 8), 'width': 0.01}},
            "norm='layer' .* 1 channels",
        ),
    ],
    ids=['generator', 'residual', 'discriminator', 'width'],
)
def test_norms_with_constant_output_are_rejected(changes, message):
    for fields in changes.values():
        fields['strides'] = (2, 2, 2)
    networks, config = tiny(**changes)
    with pytest.raises(UserError, match=message):
        train_state.create(config, networks, (8, 8, 3))


def test_other_norms_of_single_pixels_are_not_constant():
    """At 1x1 pixels, norms over several channels or over the batch are not constant."""
    for norm in norms.NORMS:
        if norm != 'instance':
            fields = {'norm': norm, 'features': (6, 8, 8), 'strides': (2, 2, 2)}
            (_, discriminator, _), _ = tiny(discriminator=fields)
            variables = initial(discriminator, images(1))
            logits, _ = discriminator.apply(
                variables, images(4), train=True, mutable=['batch_stats', 'intermediates']
            )
            assert np.ptp(logits) > 0


# Conditional networks.


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


def test_residual_discriminators_need_even_sides():
    config = residual_config()
    config.generator.update(base_size=3, features=(256, 256), strides=(2, 2, 1))
    config.discriminator.update(strides=(2, 2, 2, 1))
    with pytest.raises(UserError, match=r'strides.* 12'):
        models.build(config, (12, 12, 3))

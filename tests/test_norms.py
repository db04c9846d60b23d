"""Normalization: spectral, batch, layer, instance and group normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import train_state
from dcgan_jax.models import layers, norms
from dcgan_jax.models.conditioning import ConditionalEmbedding
from dcgan_jax.runtime.errors import UserError
from tests.conftest import slow_except
from tests.small_networks import RNG, images, initial, tiny


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

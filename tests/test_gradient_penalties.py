"""Penalties of discriminators whose gradients are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import gradient_penalties
from dcgan_jax.configs import cifar10

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(4, 4, 3))
REAL, FAKE = (RNG.uniform(-1, 1, (6, 4, 4, 3)) for _ in range(2))


def linear(images):
    return jnp.einsum('bhwc,hwc->b', images, jnp.asarray(WEIGHTS, jnp.float32))[:, None]


def bowl(images):
    """|x|^2 / 2, whose gradient is x."""
    return 0.5 * jnp.sum(jnp.square(images), axis=(1, 2, 3))[:, None]


def single(x):
    return jnp.asarray(x, jnp.float32)


def test_r1_of_a_linear_and_of_a_quadratic_discriminator():
    assert gradient_penalties.r1(linear, single(REAL)) == pytest.approx(
        np.sum(WEIGHTS**2) / 2, rel=1e-5
    )
    expected = np.mean(np.sum(REAL**2, axis=(1, 2, 3))) / 2
    assert gradient_penalties.r1(bowl, single(REAL)) == pytest.approx(expected, rel=1e-5)


def test_unit_norm_is_zero_for_a_slope_of_one_alone():
    norm = np.sqrt(np.sum(WEIGHTS**2))
    assert gradient_penalties.unit_norm(linear, single(REAL)) == pytest.approx(
        (norm - 1) ** 2, rel=1e-5
    )
    assert gradient_penalties.unit_norm(lambda x: linear(x) / norm, single(REAL)) < 1e-10
    dead = jax.grad(
        lambda scale: gradient_penalties.unit_norm(lambda x: scale * linear(x), single(REAL))
    )
    assert np.isfinite(dead(0.0))  # the root has no slope at 0


def test_logits_of_packs_have_one_norm_each():
    def packed(images):
        return bowl(images).reshape(3, 2).sum(axis=1, keepdims=True)

    expected = np.sum(REAL**2, axis=(1, 2, 3)).reshape(3, 2).sum(axis=1)
    actual = gradient_penalties.squared_gradient_norms(packed, single(REAL))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


QUARTERS = [0, 0.25, 0.5, 0.75, 1]


def test_points_between_lie_on_the_line_and_everywhere_on_it():
    """Gulrajani et al. 2017, algorithm 1: one share from U[0, 1] for each pair of images."""
    real, fake = np.zeros((4000, 3, 2, 2)), np.ones((4000, 3, 2, 2))
    points = np.asarray(
        gradient_penalties.interpolate(jax.random.key(0), single(real), single(fake))
    )
    np.testing.assert_array_equal(points, np.broadcast_to(points[:, :1, :1, :1], points.shape))
    shares = points[:, 0, 0, 0]
    np.testing.assert_allclose(np.quantile(shares, QUARTERS), QUARTERS, atol=0.03)


def test_points_around_move_by_a_share_of_noise_of_half_a_standard_deviation():
    """Kodali et al. 2017: x + a 0.5 s u with a from U[0, 1] per image and u from it per pixel."""
    real = RNG.normal(size=(2000, 8, 8, 3))
    moved = (
        np.asarray(gradient_penalties.perturb(jax.random.key(0), single(real)), np.float64) - real
    )
    assert moved.min() > -1e-6
    # The largest of 192 draws from U[0, 1] is nearly 1, which leaves the image's share.
    largest = moved.max(axis=(1, 2, 3))
    shares = largest / (0.5 * real.std())
    np.testing.assert_allclose(np.quantile(shares, QUARTERS), QUARTERS, atol=0.04)
    noise = moved / largest[:, None, None, None]
    np.testing.assert_allclose(np.quantile(noise, QUARTERS), QUARTERS, atol=0.01)


def test_the_total_weighs_each_at_its_place():
    """Images of one value each, whose slopes of norm |x| are known for every penalty.

    Real images have the norm 2 and no deviation, so that points around them are themselves; fakes
    have the norm 5. Between them norms are uniform: E[n^2] - 2 E[n] + 1 = 39 / 3 - 7 + 1 = 7.
    """
    real, fake = np.full((4000, 2, 2, 1), 1.0), np.full((4000, 2, 2, 1), 2.5)
    expected = {
        'r1': 3 * 2**2 / 2,
        'r2': 5 * 5**2 / 2,
        'wgan_gp': 7 * 7,
        'dragan': 11 * (2 - 1) ** 2,
    }
    weights = {'r1': 3.0, 'r2': 5.0, 'wgan_gp': 7.0, 'dragan': 11.0}

    def total(**weights):
        config = cifar10.get_config().penalty
        assert not gradient_penalties.is_used(config)
        config.update(weights)
        assert gradient_penalties.is_used(config)
        return float(
            gradient_penalties.total(bowl, single(real), single(fake), jax.random.key(1), config)
        )

    alone = {name: total(**{name: weight}) for name, weight in weights.items()}
    random = alone.pop('wgan_gp'), expected.pop('wgan_gp')
    assert alone == pytest.approx(expected, rel=1e-5)
    assert random[0] == pytest.approx(random[1], rel=0.05)  # 4,000 shares
    assert total(**weights) == pytest.approx(sum(alone.values()) + random[0], rel=1e-5)

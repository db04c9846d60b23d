"""Gradient penalties of discriminators with known gradients."""

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


def quadratic(images):
    """Return |x|^2 / 2, whose gradient is x."""
    return 0.5 * jnp.sum(jnp.square(images), axis=(1, 2, 3))[:, None]


def to_f32(x):
    return jnp.asarray(x, jnp.float32)


def test_r1_of_linear_and_quadratic_discriminators():
    assert gradient_penalties.r1(linear, to_f32(REAL)) == pytest.approx(
        np.sum(WEIGHTS**2) / 2, rel=1e-5
    )
    expected = np.mean(np.sum(REAL**2, axis=(1, 2, 3))) / 2
    assert gradient_penalties.r1(quadratic, to_f32(REAL)) == pytest.approx(expected, rel=1e-5)


def test_one_centered_penalty_is_zero_for_gradients_of_norm_one():
    norm = np.sqrt(np.sum(WEIGHTS**2))
    assert gradient_penalties.one_centered(linear, to_f32(REAL)) == pytest.approx(
        (norm - 1) ** 2, rel=1e-5
    )
    assert gradient_penalties.one_centered(lambda x: linear(x) / norm, to_f32(REAL)) < 1e-10
    gradient = jax.grad(
        lambda scale: gradient_penalties.one_centered(lambda x: scale * linear(x), to_f32(REAL))
    )
    assert np.isfinite(gradient(0.0))  # The gradient of sqrt is infinite at 0.


def test_packed_logits_have_one_norm_per_pack():
    def packed(images):
        return quadratic(images).reshape(3, 2).sum(axis=1, keepdims=True)

    expected = np.sum(REAL**2, axis=(1, 2, 3)).reshape(3, 2).sum(axis=1)
    actual = gradient_penalties.squared_gradient_norms(packed, to_f32(REAL))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


QUANTILES = [0, 0.25, 0.5, 0.75, 1]


def test_interpolate_is_uniform_between_real_and_fake():
    """Gulrajani et al. 2017, algorithm 1: one weight from U[0, 1] for each pair of images."""
    real, fake = np.zeros((4000, 3, 2, 2)), np.ones((4000, 3, 2, 2))
    points = np.asarray(
        gradient_penalties.interpolate(jax.random.key(0), to_f32(real), to_f32(fake))
    )
    np.testing.assert_array_equal(points, np.broadcast_to(points[:, :1, :1, :1], points.shape))
    weights = points[:, 0, 0, 0]
    np.testing.assert_allclose(np.quantile(weights, QUANTILES), QUANTILES, atol=0.03)


def test_perturb_adds_noise_of_half_a_standard_deviation():
    """Kodali et al. 2017: x + a 0.5 s u with a from U[0, 1] per image and u from it per pixel."""
    real = RNG.normal(size=(2000, 8, 8, 3))
    moved = (
        np.asarray(gradient_penalties.perturb(jax.random.key(0), to_f32(real)), np.float64) - real
    )
    assert moved.min() > -1e-6
    # The largest of 192 draws from U[0, 1] is nearly 1, so the largest change shows the weight.
    largest = moved.max(axis=(1, 2, 3))
    weights = largest / (0.5 * real.std())
    np.testing.assert_allclose(np.quantile(weights, QUANTILES), QUANTILES, atol=0.04)
    noise = moved / largest[:, None, None, None]
    np.testing.assert_allclose(np.quantile(noise, QUANTILES), QUANTILES, atol=0.01)


def test_total_is_the_weighted_sum_of_all_penalties():
    """Compare with the expected penalties of constant images, whose gradients have norm |x|.

    Real images have norm 2 and standard deviation 0, so perturbed images are equal to them; fakes
    have norm 5. Norms n of interpolated images are uniform: E[n^2] - 2 E[n] + 1 = 39 / 3 - 7 + 1
    = 7.
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
            gradient_penalties.total(
                quadratic, to_f32(real), to_f32(fake), jax.random.key(1), config
            )
        )

    values = {name: total(**{name: weight}) for name, weight in weights.items()}
    random = values.pop('wgan_gp'), expected.pop('wgan_gp')
    assert values == pytest.approx(expected, rel=1e-5)
    assert random[0] == pytest.approx(random[1], rel=0.05)  # Estimated from 4,000 images.
    assert total(**weights) == pytest.approx(sum(values.values()) + random[0], rel=1e-5)

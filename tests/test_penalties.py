"""Penalties of discriminators whose gradients are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10
from dcgan_jax import penalties

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
    assert penalties.r1(linear, single(REAL)) == pytest.approx(np.sum(WEIGHTS**2) / 2, rel=1e-5)
    expected = np.mean(np.sum(REAL**2, axis=(1, 2, 3))) / 2
    assert penalties.r1(bowl, single(REAL)) == pytest.approx(expected, rel=1e-5)


def test_unit_norm_is_zero_for_a_slope_of_one_alone():
    norm = np.sqrt(np.sum(WEIGHTS**2))
    assert penalties.unit_norm(linear, single(REAL)) == pytest.approx((norm - 1) ** 2, rel=1e-5)
    assert penalties.unit_norm(lambda x: linear(x) / norm, single(REAL)) < 1e-10
    dead = jax.grad(lambda scale: penalties.unit_norm(lambda x: scale * linear(x), single(REAL)))
    assert np.isfinite(dead(0.0))  # the root has no slope at 0


def test_logits_of_packs_have_one_norm_each():
    def packed(images):
        return bowl(images).reshape(3, 2).sum(axis=1, keepdims=True)

    expected = np.sum(REAL**2, axis=(1, 2, 3)).reshape(3, 2).sum(axis=1)
    actual = penalties.squared_gradient_norms(packed, single(REAL))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_points_between_lie_on_the_line_and_everywhere_on_it():
    real, fake = np.zeros((4000, 1, 1, 2)), np.ones((4000, 1, 1, 2))
    points = np.asarray(penalties.between(jax.random.key(0), single(real), single(fake)))
    np.testing.assert_array_equal(points[..., 0], points[..., 1])
    quarters = [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(np.quantile(points, quarters), quarters, atol=0.03)


def test_points_around_move_by_up_to_half_a_standard_deviation():
    real = np.tile(REAL, (50, 1, 1, 1))
    moved = np.asarray(penalties.around(jax.random.key(0), single(real))) - real
    assert moved.min() > -1e-6
    assert 0.45 * REAL.std() < moved.max() <= 0.5 * REAL.std() + 1e-6
    assert moved.mean() == pytest.approx(0.125 * REAL.std(), rel=0.1)
    assert np.ptp(moved[0]) > 0.5 * moved[0].max()  # each pixel by itself


def test_the_total_weighs_each_at_its_place():
    config = cifar10.get_config().penalty
    assert not penalties.is_used(config)
    config.update(r1=3.0, r2=5.0, wgan_gp=7.0, dragan=11.0)
    assert penalties.is_used(config)
    key = jax.random.key(1)
    squares = [np.sum(x**2, axis=(1, 2, 3)) for x in (REAL, FAKE)]
    between = np.asarray(penalties.between(key, single(REAL), single(FAKE)), np.float64)
    around = np.asarray(penalties.around(key, single(REAL)), np.float64)
    norms = [np.sqrt(np.sum(x**2, axis=(1, 2, 3))) for x in (between, around)]
    expected = (
        3 * squares[0].mean() / 2
        + 5 * squares[1].mean() / 2
        + 7 * np.mean((norms[0] - 1) ** 2)
        + 11 * np.mean((norms[1] - 1) ** 2)
    )
    actual = penalties.total(bowl, single(REAL), single(FAKE), key, config)
    assert actual == pytest.approx(expected, rel=1e-5)

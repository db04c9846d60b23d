"""Latent optimization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import models, train_state
from dcgan_jax.data import degradations
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import discriminator_features, latent_optimization


def test_select_best_returns_the_restart_with_the_smallest_loss_of_each_image():
    rng = np.random.default_rng(0)
    values, losses = rng.normal(size=(12, 2, 3)), rng.permutation(12).astype(np.float32)
    expected = [values[4 * i + losses[4 * i : 4 * i + 4].argmin()] for i in range(3)]
    found = latent_optimization.select_best(jnp.asarray(values, jnp.float32), losses, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_minimize_finds_the_minimum_of_each_latent_on_the_sphere():
    targets = latent_optimization.project_to_sphere(jax.random.normal(jax.random.key(0), (5, 7)))
    start = jax.random.normal(jax.random.key(1), (5, 7))

    def objective(latents):
        return jnp.sum((latents - targets) ** 2, axis=-1)

    found, losses = latent_optimization.minimize(objective, start, 400, 0.05)
    np.testing.assert_allclose(found, targets, atol=1e-2)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 7**0.5, rtol=1e-5)
    np.testing.assert_allclose(losses, objective(found), atol=1e-6)
    # Adam is element-wise, so latents do not depend on other latents of the batch.
    alone, _ = latent_optimization.minimize(
        lambda latents: jnp.sum((latents - targets[2:3]) ** 2, axis=-1), start[2:3], 400, 0.05
    )
    np.testing.assert_allclose(alone, found[2:3], atol=1e-5)


def test_pixel_weights_are_the_missing_fraction_around_them():
    holes = np.zeros((1, 16, 16, 1), np.float32)
    holes[0, 6:10, 6:10] = 1
    weights = np.asarray(latent_optimization._weights(jnp.asarray(holes)))[0, ..., 0]
    assert weights.mean() == np.float32(1.0) or abs(weights.mean() - 1) < 1e-5
    expected = np.zeros((16, 16))
    for i in range(16):
        for j in range(16):
            near = holes[0, max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4]
            expected[i, j] = near.sum() / 49 * (1 - holes[0, i, j, 0])
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-4)


def networks_of(config):
    networks = models.build(config, (8, 8, 3))
    return networks, jax.jit(lambda: train_state.create(config, networks, (8, 8, 3)))()


@pytest.mark.parametrize('changes', [{'pack': 3}, {'minibatch_stddev': 4}])
def test_logits_do_not_depend_on_other_images(config, changes):
    """Discriminators with packing or minibatch statistics are applied to copies of one image."""
    config.discriminator.update(changes)
    config.batch_size = 12
    networks, state = networks_of(config)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    together = discriminator_features.logits(networks, state, pixels)
    for index in (0, 6):
        single = discriminator_features.logits(networks, state, pixels[index : index + 1])
        np.testing.assert_allclose(single, together[index : index + 1], rtol=1e-4, atol=1e-6)
    assert discriminator_features.DiscriminatorFeatures(networks, state)(pixels).shape[0] == 7


def test_reconstructions_do_not_depend_on_other_images(config):
    config.discriminator.pack = 2
    config.latent_optimization.update(restarts=3, steps=3)
    networks, state = networks_of(config)
    real = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 3)).astype(np.float32)
    holes = np.zeros((1, 8, 8, 1), np.float32)
    holes[:, 2:5, 2:5] = 1
    given = np.asarray(degradations.apply_mask(jnp.asarray(real), jnp.asarray(holes)))
    sampler = Sampler(networks.generator, config)
    config.input.kind = 'masked'
    found = latent_optimization.LatentOptimizer(networks, config, sampler)
    reversed_order = found(state, given[::-1])[::-1]
    np.testing.assert_allclose(found(state, given), reversed_order, atol=1)

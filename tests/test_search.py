"""Latents found again from what is left of their images."""

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax import search


def test_each_latent_goes_to_its_own_minimum_on_the_sphere():
    targets = search.on_sphere(jax.random.normal(jax.random.key(0), (5, 7)))
    start = jax.random.normal(jax.random.key(1), (5, 7))

    def objective(latents):
        return jnp.sum((latents - targets) ** 2, axis=-1)

    found, losses = search.minimise(objective, start, 400, 0.05)
    np.testing.assert_allclose(found, targets, atol=1e-2)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 7**0.5, rtol=1e-5)
    np.testing.assert_allclose(losses, objective(found), atol=1e-6)
    # Adam works by coordinate: whatever else is searched for changes nothing.
    alone, _ = search.minimise(
        lambda latents: jnp.sum((latents - targets[2:3]) ** 2, axis=-1), start[2:3], 400, 0.05
    )
    np.testing.assert_allclose(alone, found[2:3], atol=1e-5)


def test_pixels_count_as_much_as_lacks_around_them():
    holes = np.zeros((1, 16, 16, 1), np.float32)
    holes[0, 6:10, 6:10] = 1
    weights = np.asarray(search._weights(jnp.asarray(holes)))[0, ..., 0]
    assert weights.mean() == np.float32(1.0) or abs(weights.mean() - 1) < 1e-5
    expected = np.zeros((16, 16))
    for i in range(16):
        for j in range(16):
            near = holes[0, max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4]
            expected[i, j] = near.sum() / 49 * (1 - holes[0, i, j, 0])
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-4)

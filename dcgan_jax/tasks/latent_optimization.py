"""Latent optimization: restore degraded images with a GAN.

Inpainting (Yeh et al. 2017, arXiv:1607.07539), super-resolution (PULSE: Menon et al. 2020,
arXiv:2003.03808) and AnoGAN (Schlegl et al. 2017, arXiv:1703.05921) differ only in the objective.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dcgan_jax.data import degradations, images
from dcgan_jax.models import Networks
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import poisson_blending
from dcgan_jax.tasks.discriminator_features import per_image_discriminator
from dcgan_jax.train_state import GANState

_WINDOW = 7  # Size in pixels of the window of Yeh et al.'s importance weights.
_BATCH_SIZE = 8


def minimize(
    objective: Callable[[jax.Array], jax.Array],
    latents: jax.Array,
    steps: int,
    learning_rate: float,
) -> tuple[jax.Array, jax.Array]:
    """Minimize an objective over latents by projected gradient descent with Adam.

    Latents stay on the sphere of radius sqrt(d), close to which N(0, I) is concentrated (PULSE).

    Args:
        objective: Function from latents, float32 `[N, d]`, to values `[N]`. Each value must depend
            only on its own latent.
        latents: Initial latents, float32 `[N, d]`.
        steps: Number of steps.
        learning_rate: Learning rate.

    Returns:
        The final latents and their objective values.
    """
    adam = optax.adam(learning_rate)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        latents, state = carry
        grads = jax.grad(lambda z: jnp.sum(objective(z)))(latents)
        with jax.numpy_dtype_promotion('standard'):  # For Adam's b1**count.
            updates, state = adam.update(grads, state)
        return (project_to_sphere(latents + updates), state), None

    latents = project_to_sphere(latents)
    (latents, _), _ = jax.lax.scan(step, (latents, adam.init(latents)), length=steps)
    return latents, objective(latents)


def select_best(values: jax.Array, losses: jax.Array, restarts: int) -> jax.Array:
    """Return the values of the restarts with the smallest loss.

    Args:
        values: Values `[N * restarts, ...]`.
        losses: Losses `[N * restarts]`.
        restarts: Number of restarts.

    Returns:
        Values `[N, ...]`.
    """
    best = jnp.argmin(losses.reshape(-1, restarts), axis=1)
    return values[jnp.arange(len(best)) * restarts + best]


def project_to_sphere(latents: jax.Array) -> jax.Array:
    """Project latents `[N, d]` to the sphere of radius sqrt(d)."""
    norms = jnp.linalg.norm(latents, axis=-1, keepdims=True)
    return latents * (latents.shape[-1] ** 0.5) / (norms + 1e-8)


class LatentOptimizer:
    """Restores images by latent optimization; has the call signature of a `Sampler`."""

    def __init__(self, networks: Networks, config: ConfigDict, sampler: Sampler, seed: int = 0):
        """Initialize the optimizer, which is compiled at the first call.

        Args:
            networks: Networks of the run.
            config: The run's config, with the `input` and `latent_optimization` to use.
            sampler: Sampler of the run's generator.
            seed: Seed of the initial latents.
        """
        self._sampler, self._config = sampler, config
        self._key = purpose_key(seed, Purpose.LATENT_OPTIMIZATION)
        self._restore = jax.jit(functools.partial(_restore, networks, config))

    def __call__(self, state: GANState, inputs: np.ndarray) -> np.ndarray:
        """Restore images, uint8 `[N, H, W, C]`, from inputs `[N, H, W, C + 1]`."""
        variables = self._sampler.variables(state)
        restore = functools.partial(
            self._restore, variables, state.discriminator.variables, self._key
        )
        return map_batches(restore, _BATCH_SIZE, 'Optimizing latents', inputs, delay=0)


def _restore(
    networks: Networks,
    config: ConfigDict,
    variables: Any,
    discriminator: Any,
    key: Any,
    inputs: jax.Array,
) -> jax.Array:
    # All images have the same initial latents, so that results do not depend on other images.
    count, restarts = len(inputs), config.latent_optimization.restarts
    # Restarts cycle through the classes, each with its first caption.
    conditions = networks.conditioner.conditions[:: networks.conditioner.captions_per_class]
    labels = jnp.tile(np.resize(conditions, restarts), count)
    pack = config.discriminator.pack
    known = jnp.repeat(inputs, restarts, axis=0)
    weights = _weights(known[..., -1:]) if config.input.kind == 'masked' else 1.0

    def generate(latents: jax.Array) -> jax.Array:
        return networks.generator.apply(variables, latents, labels, train=False)

    def objective(latents: jax.Array) -> jax.Array:
        fake = generate(latents)
        difference = jnp.abs(degradations.degrade(config, fake, known) - known[..., :-1])
        packed, packed_labels = (jnp.repeat(array, pack, axis=0) for array in (fake, labels))
        logits = per_image_discriminator(networks.discriminator).apply(
            discriminator, packed, packed_labels, train=False
        )[:, 0]
        context_loss = jnp.mean(weights * difference, axis=(1, 2, 3))
        return context_loss + config.latent_optimization.prior * jax.nn.softplus(-logits)

    start = jnp.tile(degradations.sample_latents(key, restarts, config.latent_dim), (count, 1))
    latents, losses = minimize(
        objective, start, config.latent_optimization.steps, config.latent_optimization.learning_rate
    )
    fake = select_best(generate(latents), losses, restarts)
    if config.input.kind == 'masked':
        fake = poisson_blending.blend(inputs[..., :-1], inputs[..., -1:], fake)
    return images.to_uint8(fake)


def _weights(holes: jax.Array) -> jax.Array:
    """Return the weights of known pixels (Yeh et al., eq. 3).

    A weight is proportional to the fraction of missing pixels in the window around the pixel. The
    weights are scaled to a mean of 1 over the image.
    """
    window = jnp.ones((_WINDOW, _WINDOW, 1, 1)) / _WINDOW**2
    missing = jax.lax.conv_general_dilated(
        holes, window, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    weights = missing * (1.0 - holes)
    return weights / (jnp.mean(weights, axis=(1, 2, 3), keepdims=True) + 1e-8)

"""Latents searched whose images fit what is known: uses that a generator wasn't made for.

Inpainting (Yeh et al. 2017, arXiv:1607.07539), super-resolution (PULSE: Menon et al. 2020,
arXiv:2003.03808) and AnoGAN (Schlegl et al. 2017, arXiv:1703.05921) differ in the objective only.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dcgan_jax.data import captions, degradations, images
from dcgan_jax.models import Networks
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import poisson_blending
from dcgan_jax.tasks.discriminator_features import unpacked
from dcgan_jax.train_state import GANState

_NEIGHBOURHOOD = 7  # pixels a side of Yeh et al.'s weights
_IMAGES = 8  # searched for at once


def minimize(
    objective: Callable[[jax.Array], jax.Array],
    latents: jax.Array,
    steps: int,
    learning_rate: float,
) -> tuple[jax.Array, jax.Array]:
    """Moves each latent to where the objective is small, by Adam.

    Latents stay on the sphere of radius sqrt(d), where nearly all of N(0, I) lies (PULSE).

    Args:
        objective: latents float32 `[N, d]` to `[N]`, each a function of its own latent alone.
        latents: where to start.
        steps: of Adam.
        learning_rate: its.

    Returns:
        The latents after the last step, and the objective there.
    """
    adam = optax.adam(learning_rate)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        latents, state = carry
        gradient = jax.grad(lambda z: jnp.sum(objective(z)))(latents)
        with jax.numpy_dtype_promotion('standard'):  # Adam's b1**count.
            change, state = adam.update(gradient, state)
        return (project_to_sphere(latents + change), state), None

    latents = project_to_sphere(latents)
    (latents, _), _ = jax.lax.scan(step, (latents, adam.init(latents)), length=steps)
    return latents, objective(latents)


def project_to_sphere(latents: jax.Array) -> jax.Array:
    """The nearest latents `[N, d]` of norm sqrt(d)."""
    norms = jnp.linalg.norm(latents, axis=-1, keepdims=True)
    return latents * (latents.shape[-1] ** 0.5) / (norms + 1e-8)


class LatentOptimizer:
    """Completes images by a generator of latents: called as a `Sampler` of a trained one is."""

    def __init__(self, networks: Networks, config: ConfigDict, sampler: Sampler, seed: int = 0):
        """Compiles the search at its first use.

        Args:
            networks: of the run.
            config: of the run, with the `input` to complete and `search`.
            sampler: of its generator.
            seed: of the latents to start from.
        """
        self._sampler, self._config = sampler, config
        self._key = purpose_key(seed, Purpose.LATENT_OPTIMIZATION)
        self._search = jax.jit(functools.partial(_search, networks, config))

    def __call__(self, state: GANState, given: np.ndarray) -> np.ndarray:
        """Images uint8 `[N, H, W, C]` of inputs `[N, H, W, C + 1]`, see `data.degradations`."""
        variables = self._sampler.variables(state)
        discriminator = {'params': state.discriminator.params, **state.discriminator.statistics}

        search = functools.partial(self._search, variables, discriminator, self._key)
        return map_batches(search, _IMAGES, 'Searching', given, delay=0)


def _search(
    networks: Networks,
    config: ConfigDict,
    variables: Any,
    discriminator: Any,
    key: Any,
    given: jax.Array,
) -> jax.Array:
    # All images start from the same latents, so that each is a function of itself alone.
    count, restarts = len(given), config.search.restarts
    # Classes in turn, each by its first caption where it has several.
    classes = captions.trained_conditions(config, networks.generator.num_classes)[
        :: captions.num_captions(config)
    ]
    labels = jnp.tile(np.resize(classes, restarts), count)
    pack = config.discriminator.pack
    known = jnp.repeat(given, restarts, axis=0)
    weights = _weights(known[..., -1:]) if config.input.kind == 'masked' else 1.0

    def generate(latents: jax.Array) -> jax.Array:
        return networks.generator.apply(variables, latents, labels, train=False)

    def objective(latents: jax.Array) -> jax.Array:
        made = generate(latents)
        apart = jnp.abs(degradations.degrade(config, made, known) - known[..., :-1])
        shown, of = (jnp.repeat(array, pack, axis=0) for array in (made, labels))
        logits = unpacked(networks.discriminator).apply(discriminator, shown, of, train=False)[:, 0]
        context = jnp.mean(weights * apart, axis=(1, 2, 3))
        return context + config.search.prior * jax.nn.softplus(-logits)

    start = jnp.tile(degradations.sample_latents(key, restarts, config.latent_dim), (count, 1))
    latents, losses = minimize(objective, start, config.search.steps, config.search.learning_rate)
    best = jnp.argmin(losses.reshape(count, restarts), axis=1)
    made = generate(latents).reshape(count, restarts, *given.shape[1:3], -1)
    made = jnp.take_along_axis(made, best.reshape(-1, 1, 1, 1, 1), axis=1)[:, 0]
    if config.input.kind == 'masked':
        made = poisson_blending.blend(given[..., :-1], given[..., -1:], made)
    return images.to_uint8(made)


def _weights(holes: jax.Array) -> jax.Array:
    """What known pixels count: the more, the more of those around are missing (Yeh et al., eq. 3).

    Scaled so that their mean over the image is 1.
    """
    window = jnp.ones((_NEIGHBOURHOOD, _NEIGHBOURHOOD, 1, 1)) / _NEIGHBOURHOOD**2
    near = jax.lax.conv_general_dilated(
        holes, window, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    weights = near * (1.0 - holes)
    return weights / (jnp.mean(weights, axis=(1, 2, 3), keepdims=True) + 1e-8)

"""Images from the generator's average: the right BatchNorm statistics, nothing from the batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax import images
from dcgan_jax.keys import Role, role_key
from dcgan_jax.models import Generator
from dcgan_jax.train_step import sample_latents


def standing_statistics(
    generator: Generator,
    params: Any,
    key: jax.Array,
    *,
    batches: int,
    batch_size: int,
    latent_dim: int,
) -> Any:
    """BatchNorm statistics that belong to `params`, whatever they are (an EMA, say).

    The running statistics of training belong to parameters that have moved on. These are the mean
    of the batch statistics over fresh latents ("standing statistics", Brock et al. 2019,
    arXiv:1809.11096, section 4.1).

    Args:
        generator: the module.
        params: its parameters.
        key: for the latents.
        batches: how many batches are averaged.
        batch_size: latents a batch.
        latent_dim: size of a latent.

    Returns:
        The collection 'batch_stats'; empty for a generator without BatchNorm.
    """
    # With momentum 0 the updated running statistics are the batch's own.
    own = generator.clone(norm_momentum=0.0)
    shapes = jax.eval_shape(
        lambda: own.init(key, jnp.zeros((1, latent_dim)), train=False).get('batch_stats', {})
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if not zeros:
        return zeros

    def add(total: Any, index: jax.Array) -> tuple[Any, None]:
        latents = sample_latents(jax.random.fold_in(key, index), batch_size, latent_dim)
        variables = {'params': params, 'batch_stats': zeros}
        _, updated = own.apply(variables, latents, train=True, mutable=['batch_stats'])
        return jax.tree.map(jnp.add, total, updated['batch_stats']), None

    total, _ = jax.lax.scan(add, zeros, jnp.arange(batches))
    return jax.tree.map(lambda leaf: leaf / batches, total)


class Sampler:
    """Draws images from a generator with standing statistics, in batches of one compiled size.

    An image is a function of its latent alone, whatever else is in its batch.
    """

    def __init__(self, generator: Generator, config: Any):
        """Prepares (and compiles at first use) a sampler.

        Args:
            generator: the module.
            config: the run's; `ema`, `latent_dim`, `batch_size` and `seed` are read.
        """
        self._batch_size = config.batch_size
        self._latent_dim = config.latent_dim
        self._key = role_key(config.seed, Role.STANDING)

        def statistics(params: Any, key: jax.Array) -> Any:
            return standing_statistics(
                generator,
                params,
                key,
                batches=config.ema.standing_batches,
                batch_size=config.batch_size,
                latent_dim=config.latent_dim,
            )

        def generate(params: Any, batch_stats: Any, latents: jax.Array) -> jax.Array:
            variables = {'params': params, 'batch_stats': batch_stats}
            return images.to_uint8(generator.apply(variables, latents, train=False))

        self._statistics = jax.jit(statistics)
        self._generate = jax.jit(generate)

    def latents(self, seed: int, count: int) -> np.ndarray:
        """Latents float32 `[count, latent_dim]`, a function of (seed, index) alone."""
        root = role_key(seed, Role.SAMPLES)

        def latent(index: jax.Array) -> jax.Array:
            return sample_latents(jax.random.fold_in(root, index), 1, self._latent_dim)[0]

        return np.asarray(jax.jit(jax.vmap(latent))(np.arange(count)))

    def __call__(self, params: Any, latents: np.ndarray) -> np.ndarray:
        """Generates one image a latent.

        Args:
            params: the generator's parameters, usually `GANState.ema_params`.
            latents: float32 `[N, latent_dim]`.

        Returns:
            uint8 `[N, H, W, C]`.
        """
        batch_stats = self._statistics(params, self._key)
        pieces = []
        for start in range(0, len(latents), self._batch_size):
            piece = latents[start : start + self._batch_size]
            padded = np.zeros((self._batch_size, self._latent_dim), np.float32)
            padded[: len(piece)] = piece
            pieces.append(np.asarray(self._generate(params, batch_stats, padded))[: len(piece)])
        return np.concatenate(pieces)

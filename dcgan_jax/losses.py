"""Adversarial losses on logits; `LOSSES` names them for `config.loss.name`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class AdversarialLoss(NamedTuple):
    """The two sides of one game; each takes logits `[B, 1]` and returns a float32 scalar.

    Attributes:
        discriminator: `(real_logits, fake_logits) -> loss` that D minimises.
        generator: `fake_logits -> loss` that G minimises.
    """

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]


def non_saturating_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """-E[log D(x)] - E[log(1 - D(G(z)))] with D = sigmoid(logits) (Goodfellow et al. 2014, eq. 1).

    Args:
        real_logits: `[B, 1]`, of real images.
        fake_logits: `[B, 1]`, of generated images.

    Returns:
        A float32 scalar, at least 0. log D = -softplus(-logit) keeps it finite for large logits.
    """
    real, fake = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def non_saturating_generator(fake_logits: jax.Array) -> jax.Array:
    """-E[log D(G(z))] with D = sigmoid(logits) (Goodfellow et al. 2014, section 3).

    Args:
        fake_logits: `[B, 1]`, of generated images.

    Returns:
        A float32 scalar, at least 0.
    """
    return jnp.mean(jax.nn.softplus(-fake_logits.astype(jnp.float32)))


LOSSES = {
    'non_saturating': AdversarialLoss(non_saturating_discriminator, non_saturating_generator),
}

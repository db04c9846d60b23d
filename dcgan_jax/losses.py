"""Adversarial losses on logits (`LOSSES`), and auxiliary losses."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


class AdversarialLoss(NamedTuple):
    """Losses of both networks as functions from logits `[B, 1]` to a float32 scalar.

    Attributes:
        discriminator: Discriminator loss, a function of (real_logits, fake_logits).
        generator: Generator loss, a function of (real_logits, fake_logits).
        uses_real_logits: Whether the generator loss uses the real logits, which may be None
            otherwise.
        has_real_label: Whether the discriminator loss has the argument `real_label`.
        real_logits_are_positive: Whether D learns positive logits for real images and negative
            logits for fakes; adaptive augmentation (ADA) depends on it.
        needs_lipschitz_bound: Whether the loss is unbounded without a Lipschitz constraint of D.
        output: Function from logits to the outputs of D that are logged.
    """

    discriminator: Callable[..., jax.Array]
    generator: Callable[[jax.Array | None, jax.Array], jax.Array]
    uses_real_logits: bool = False
    has_real_label: bool = False
    real_logits_are_positive: bool = False
    needs_lipschitz_bound: bool = False
    output: Callable[[jax.Array], jax.Array] = lambda logits: logits


def non_saturating_discriminator(
    real_logits: jax.Array, fake_logits: jax.Array, real_label: float = 1.0
) -> jax.Array:
    """Compute -E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow et al. 2014, eq. 1).

    Args:
        real_logits: Logits of real images, `[B, 1]`; D = sigmoid(logits).
        fake_logits: Logits of fake images, `[B, 1]`.
        real_label: Target a of real images in -a log D(x) - (1 - a) log(1 - D(x)). Values below 1
            are one-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498, section 3.4).

    Returns:
        A float32 scalar, at least 0.
    """
    real, fake = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    real_loss = real_label * jax.nn.softplus(-real) + (1.0 - real_label) * jax.nn.softplus(real)
    return jnp.mean(real_loss) + jnp.mean(jax.nn.softplus(fake))


def non_saturating_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """Compute -E[log D(G(z))] (Goodfellow et al. 2014, section 3).

    Args:
        real_logits: Ignored.
        fake_logits: Logits of fake images, `[B, 1]`; D = sigmoid(logits).

    Returns:
        A float32 scalar, at least 0.
    """
    del real_logits
    return jnp.mean(jax.nn.softplus(-fake_logits.astype(jnp.float32)))


def least_squares_discriminator(
    real_logits: jax.Array, fake_logits: jax.Array, real_label: float = 1.0
) -> jax.Array:
    """Compute (E[(D(x) - b)^2] + E[D(G(z))^2]) / 2 with real label b.

    See Mao et al. 2017, arXiv:1611.04076, eq. 9, and `non_saturating_discriminator` for the
    arguments.
    """
    real, fake = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    return 0.5 * (jnp.mean(jnp.square(real - real_label)) + jnp.mean(jnp.square(fake)))


def least_squares_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """Compute E[(D(G(z)) - 1)^2] / 2 (Mao et al. 2017, eq. 9)."""
    del real_logits
    return 0.5 * jnp.mean(jnp.square(fake_logits.astype(jnp.float32) - 1.0))


def wasserstein_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Compute E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, arXiv:1701.07875, eq. 2).

    D must be Lipschitz continuous: use the penalty `wgan_gp` or spectral normalization.
    """
    return jnp.mean(fake_logits.astype(jnp.float32)) - jnp.mean(real_logits.astype(jnp.float32))


def wasserstein_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """Compute -E[D(G(z))] (Arjovsky et al. 2017, eq. 2); it is also G's hinge loss."""
    del real_logits
    return -jnp.mean(fake_logits.astype(jnp.float32))


def hinge_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Compute E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Miyato et al. 2018, eq. 16)."""
    real, fake = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    return jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))


def relativistic_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Compute E[softplus(D(G(z)) - D(x))] over pairs (Jolicoeur-Martineau 2018, arXiv:1807.00734).

    Training only converges with the penalties R1 and R2 (Huang et al. 2024, arXiv:2501.05441,
    section 2).
    """
    return jnp.mean(
        jax.nn.softplus(fake_logits.astype(jnp.float32) - real_logits.astype(jnp.float32))
    )


def relativistic_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """Compute E[softplus(D(x) - D(G(z)))] over pairs."""
    return relativistic_discriminator(fake_logits, real_logits)


def content(fake: jax.Array, real: jax.Array, norm: str) -> jax.Array:
    """Compute the mean 'l1' or 'l2' difference between images `[B, H, W, C]`."""
    difference = fake.astype(jnp.float32) - real.astype(jnp.float32)
    return jnp.mean(jnp.abs(difference) if norm == 'l1' else jnp.square(difference))


def feature_matching(pairs: Sequence[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Compute the mean absolute difference |D_i(x) - D_i(G(x))|, averaged over D's stages i.

    See Wang et al. 2018, arXiv:1711.11585, eq. 4.

    Args:
        pairs: The feature maps `[B, h, w, c]` of x and G(x) for each stage.
    """
    return sum(content(fake, real, 'l1') for real, fake in pairs) / len(pairs)


def rotation(logits: jax.Array, num_rot90: jax.Array) -> jax.Array:
    """Compute the cross-entropy of rotation prediction (Chen et al. 2019, eq. 3 and 4).

    Args:
        logits: Logits of rotated images, float32 `[B, 4]`.
        num_rot90: Number of rotations by 90 degrees, int32 `[B]` in [0, 4).
    """
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, num_rot90))


LOSSES = {
    'non_saturating': AdversarialLoss(
        non_saturating_discriminator,
        non_saturating_generator,
        has_real_label=True,
        real_logits_are_positive=True,
        output=jax.nn.sigmoid,
    ),
    'least_squares': AdversarialLoss(
        least_squares_discriminator, least_squares_generator, has_real_label=True
    ),
    'wasserstein': AdversarialLoss(
        wasserstein_discriminator, wasserstein_generator, needs_lipschitz_bound=True
    ),
    'hinge': AdversarialLoss(
        hinge_discriminator, wasserstein_generator, real_logits_are_positive=True
    ),
    'relativistic': AdversarialLoss(
        relativistic_discriminator, relativistic_generator, uses_real_logits=True
    ),
}


def create(config: ConfigDict) -> AdversarialLoss:
    """Return the adversarial losses of `config`, the group `loss` of the run's config."""
    loss = LOSSES[config.name]
    if not loss.has_real_label:
        return loss
    discriminator = functools.partial(loss.discriminator, real_label=1.0 - config.label_smoothing)
    return loss._replace(discriminator=discriminator)


def flip_labels(
    key: jax.Array, real_logits: jax.Array, fake_logits: jax.Array, probability: float
) -> tuple[jax.Array, jax.Array]:
    """Flip labels by swapping the real and fake logits, `[B, 1]`, of a pair with `probability`.

    See Chintala et al. 2016, "How to train a GAN?", point 6.
    """
    if not probability:
        return real_logits, fake_logits
    flip = jax.random.bernoulli(key, probability, real_logits.shape)
    return (
        jnp.where(flip, fake_logits, real_logits),
        jnp.where(flip, real_logits, fake_logits),
    )

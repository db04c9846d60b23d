"""Adversarial losses on logits; `LOSSES` names them for `config.loss.name`."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


class AdversarialLoss(NamedTuple):
    """The two sides of one game; each takes logits `[B, 1]` and returns a float32 scalar.

    Attributes:
        discriminator: `(real_logits, fake_logits) -> loss` that D minimizes.
        generator: `(real_logits, fake_logits) -> loss` that G minimizes.
        paired: whether G's loss looks at the real logits; where not, they may be None.
        takes_real_label: whether D's loss takes `real_label`, the target of real images.
    """

    discriminator: Callable[..., jax.Array]
    generator: Callable[[jax.Array | None, jax.Array], jax.Array]
    paired: bool = False
    takes_real_label: bool = False


def non_saturating_discriminator(
    real_logits: jax.Array, fake_logits: jax.Array, real_label: float = 1.0
) -> jax.Array:
    """-E[log D(x)] - E[log(1 - D(G(z)))] with D = sigmoid(logits) (Goodfellow et al. 2014, eq. 1).

    Args:
        real_logits: `[B, 1]`, of real images.
        fake_logits: `[B, 1]`, of generated images.
        real_label: target a of real images, -a log D(x) - (1 - a) log(1 - D(x)); below 1 is
            one-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498, section 3.4).

    Returns:
        A float32 scalar, at least 0. log D = -softplus(-logit) keeps it finite for large logits.
    """
    real, fake = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    of_real = real_label * jax.nn.softplus(-real) + (1.0 - real_label) * jax.nn.softplus(real)
    return jnp.mean(of_real) + jnp.mean(jax.nn.softplus(fake))


def non_saturating_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """-E[log D(G(z))] with D = sigmoid(logits) (Goodfellow et al. 2014, section 3).

    Args:
        real_logits: not used.
        fake_logits: `[B, 1]`, of generated images.

    Returns:
        A float32 scalar, at least 0.
    """
    del real_logits
    return jnp.mean(jax.nn.softplus(-fake_logits.astype(jnp.float32)))


def least_squares_discriminator(
    real_logits: jax.Array, fake_logits: jax.Array, real_label: float = 1.0
) -> jax.Array:
    """(E[(D(x) - b)^2] + E[D(G(z))^2]) / 2 (Mao et al. 2017, arXiv:1611.04076, eq. 9), b the label.

    Arguments and result as in `non_saturating_discriminator`.
    """
    real, fake = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    return 0.5 * (jnp.mean(jnp.square(real - real_label)) + jnp.mean(jnp.square(fake)))


def least_squares_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """E[(D(G(z)) - 1)^2] / 2 (Mao et al. 2017, eq. 9); arguments as `non_saturating_generator`."""
    del real_logits
    return 0.5 * jnp.mean(jnp.square(fake_logits.astype(jnp.float32) - 1.0))


def wasserstein_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, arXiv:1701.07875, eq. 2).

    It needs a Lipschitz D: the penalty `wgan_gp`, or spectral normalization.
    """
    return jnp.mean(fake_logits.astype(jnp.float32)) - jnp.mean(real_logits.astype(jnp.float32))


def wasserstein_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """-E[D(G(z))] (Arjovsky et al. 2017, eq. 2; also G's side of the hinge loss)."""
    del real_logits
    return -jnp.mean(fake_logits.astype(jnp.float32))


def hinge_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim & Ye 2017; Miyato et al. 2018, eq. 16)."""
    real, fake = real_logits.astype(jnp.float32), fake_logits.astype(jnp.float32)
    return jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake))


def relativistic_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """E[softplus(D(G(z)) - D(x))] over pairs (RpGAN: Jolicoeur-Martineau 2018, arXiv:1807.00734).

    It has no local optimum of collapse, but needs R1 and R2 to converge (Huang et al. 2024,
    arXiv:2501.05441, section 2).
    """
    return jnp.mean(
        jax.nn.softplus(fake_logits.astype(jnp.float32) - real_logits.astype(jnp.float32))
    )


def relativistic_generator(real_logits: jax.Array | None, fake_logits: jax.Array) -> jax.Array:
    """E[softplus(D(x) - D(G(z)))] over pairs; `real_logits` `[B, 1]` are needed here."""
    return relativistic_discriminator(fake_logits, real_logits)


def content(fake: jax.Array, real: jax.Array, norm: str) -> jax.Array:
    """How far images `[B, H, W, C]` are from what they should be: 'l1' or 'l2', a mean over all."""
    difference = fake.astype(jnp.float32) - real.astype(jnp.float32)
    return jnp.mean(jnp.abs(difference) if norm == 'l1' else jnp.square(difference))


def feature_matching(real: list[jax.Array], fake: list[jax.Array]) -> jax.Array:
    """Mean |D_i(x) - D_i(G(x))| over pairs, positions and channels, then over D's stages i.

    As in Wang et al. 2018 (arXiv:1711.11585, eq. 4), on maps `[B, h, w, c]`.
    """
    return sum(content(*maps, 'l1') for maps in zip(fake, real, strict=True)) / len(real)


def rotation(logits: jax.Array, num_rot90: jax.Array) -> jax.Array:
    """-E[log Q(num_rot90 | x)], cross-entropy of rotation prediction (Chen et al. 2019, eq. 3, 4).

    Args:
        logits: float32 `[B, 4]` of rotated images.
        num_rot90: rotations by 90 degrees, int32 `[B]`, in [0, 4).
    """
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, num_rot90))


LOSSES = {
    'non_saturating': AdversarialLoss(
        non_saturating_discriminator, non_saturating_generator, takes_real_label=True
    ),
    'least_squares': AdversarialLoss(
        least_squares_discriminator, least_squares_generator, takes_real_label=True
    ),
    'wasserstein': AdversarialLoss(wasserstein_discriminator, wasserstein_generator),
    'hinge': AdversarialLoss(hinge_discriminator, wasserstein_generator),
    'relativistic': AdversarialLoss(
        relativistic_discriminator, relativistic_generator, paired=True
    ),
}


def create(config: ConfigDict) -> AdversarialLoss:
    """The loss that `config.loss` describes, its `label_smoothing` bound."""
    loss = LOSSES[config.name]
    if not loss.takes_real_label:
        return loss
    bound = functools.partial(loss.discriminator, real_label=1.0 - config.label_smoothing)
    return loss._replace(discriminator=bound)


def flip_labels(
    key: jax.Array, real_logits: jax.Array, fake_logits: jax.Array, probability: float
) -> tuple[jax.Array, jax.Array]:
    """Swaps the logits `[B, 1]` of real and fake pairs at random, which is to flip both labels.

    Noise on D's labels (Chintala et al. 2016, "How to train a GAN?", point 6); works for any loss.
    """
    if not probability:
        return real_logits, fake_logits
    flip = jax.random.bernoulli(key, probability, real_logits.shape)
    return (
        jnp.where(flip, fake_logits, real_logits),
        jnp.where(flip, real_logits, fake_logits),
    )

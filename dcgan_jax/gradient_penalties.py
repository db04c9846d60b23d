"""Gradient penalties on the discriminator; functions of images and `apply_discriminator`.

Each returns a float32 scalar without its weight. The gradient of an image's logit in that image is
meant: with BatchNorm or minibatch standard deviation in D, logits depend on other images too, and
the norms are those of a whole batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

ApplyDiscriminator = Callable[[jax.Array], jax.Array]
NAMES = ('r1', 'r2', 'wgan_gp', 'dragan')


def squared_gradient_norms(apply_discriminator: ApplyDiscriminator, images: jax.Array) -> jax.Array:
    """|dD(x)/dx|^2 for each logit, float32 `[B]`.

    Args:
        apply_discriminator: maps images `[B, H, W, C]` to logits `[B, 1]`; or to `[B / m, 1]`, one
            for m images each (PacGAN), whose norm is then over all m.
        images: where the gradients are taken.
    """
    logits, slopes = jax.vjp(apply_discriminator, images)
    (gradients,) = slopes(jnp.ones_like(logits))
    return jnp.sum(jnp.square(gradients.astype(jnp.float32).reshape(len(logits), -1)), axis=1)


def r1(apply_discriminator: ApplyDiscriminator, real: jax.Array) -> jax.Array:
    """E[|dD/dx|^2] / 2 (Mescheder et al. 2018, arXiv:1801.04406, eq. 9); at fakes it is R2."""
    return 0.5 * jnp.mean(squared_gradient_norms(apply_discriminator, real))


def unit_norm(apply_discriminator: ApplyDiscriminator, images: jax.Array) -> jax.Array:
    """E[(|dD/dx| - 1)^2] (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3)."""
    # The root's derivative is infinite at 0, where a dead D stands.
    norms = jnp.sqrt(squared_gradient_norms(apply_discriminator, images) + 1e-12)
    return jnp.mean(jnp.square(norms - 1.0))


def between(key: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """Random points between real and fake images (WGAN-GP: Gulrajani et al. 2017, section 4)."""
    share = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
    return share * real + (1.0 - share) * fake


def around(key: jax.Array, real: jax.Array) -> jax.Array:
    """Points near real images (DRAGAN: Kodali et al. 2017, arXiv:1705.07215, the authors' code).

    Each image moves by a random share of noise U[0, 0.5 s) on every pixel, s the batch's standard
    deviation.
    """
    noise_key, share_key = jax.random.split(key)
    noise = 0.5 * jnp.std(real) * jax.random.uniform(noise_key, real.shape)
    return real + jax.random.uniform(share_key, (real.shape[0], 1, 1, 1)) * noise


def total(
    apply_discriminator: ApplyDiscriminator,
    real: jax.Array,
    fake: jax.Array,
    key: jax.Array,
    config: ConfigDict,
) -> jax.Array:
    """The weighted sum of the penalties that `config.penalty` asks for.

    Args:
        apply_discriminator: images to logits.
        real: `[B, H, W, C]`, not augmented: `apply_discriminator` augments what D sees.
        fake: the same shape, constant for D.
        key: for random points.
        config: `config.penalty`.
    """
    parts = {
        'r1': lambda: r1(apply_discriminator, real),
        'r2': lambda: r1(apply_discriminator, fake),
        'wgan_gp': lambda: unit_norm(apply_discriminator, between(key, real, fake)),
        'dragan': lambda: unit_norm(apply_discriminator, around(key, real)),
    }
    return sum(
        (config[name] * part() for name, part in parts.items() if config[name]), jnp.float32(0.0)
    )


def is_used(config: ConfigDict) -> bool:
    """Whether any penalty of `config.penalty` has a weight."""
    return any(config[name] for name in NAMES)

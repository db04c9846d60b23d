"""Gradient penalties of the discriminator, without their weights, as float32 scalars.

The penalties are defined for the gradient of each logit with respect to its own image. With
BatchNorm or minibatch standard deviation in D, a logit also depends on other images, and the
gradient of the sum of all logits is used.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

ApplyDiscriminator = Callable[[jax.Array], jax.Array]
NAMES = ('r1', 'r2', 'wgan_gp', 'dragan')


def squared_gradient_norms(apply_discriminator: ApplyDiscriminator, images: jax.Array) -> jax.Array:
    """Compute |dD(x)/dx|^2 for each logit, float32 `[B]`.

    Args:
        apply_discriminator: Function from images `[B, H, W, C]` to logits `[B, 1]`, or `[B / m, 1]`
            with packs of m images (PacGAN); the norm is then that over all m images.
        images: Images at which the gradients are computed.
    """
    logits, vjp = jax.vjp(apply_discriminator, images)
    (gradients,) = vjp(jnp.ones_like(logits))
    return jnp.sum(jnp.square(gradients.astype(jnp.float32).reshape(len(logits), -1)), axis=1)


def r1(apply_discriminator: ApplyDiscriminator, real: jax.Array) -> jax.Array:
    """Compute E[|dD/dx|^2] / 2 (Mescheder et al. 2018, arXiv:1801.04406, eq. 9).

    This is the penalty R1 for real images, and R2 for fakes.
    """
    return 0.5 * jnp.mean(squared_gradient_norms(apply_discriminator, real))


def one_centered(apply_discriminator: ApplyDiscriminator, images: jax.Array) -> jax.Array:
    """Compute E[(|dD/dx| - 1)^2] (Gulrajani et al. 2017, arXiv:1704.00028, eq. 3)."""
    # The derivative of the square root is infinite at 0.
    norms = jnp.sqrt(squared_gradient_norms(apply_discriminator, images) + 1e-12)
    return jnp.mean(jnp.square(norms - 1.0))


def interpolate(key: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """Interpolate randomly between real and fake images (WGAN-GP: Gulrajani et al. 2017)."""
    weight = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
    return weight * real + (1.0 - weight) * fake


def perturb(key: jax.Array, real: jax.Array) -> jax.Array:
    """Perturb real images (DRAGAN: Kodali et al. 2017, arXiv:1705.07215, the authors' code).

    The perturbation is noise U[0, 0.5 s) per pixel times a factor U[0, 1) per image, where s is the
    standard deviation of the batch.
    """
    noise_key, weight_key = jax.random.split(key)
    noise = 0.5 * jnp.std(real) * jax.random.uniform(noise_key, real.shape)
    return real + jax.random.uniform(weight_key, (real.shape[0], 1, 1, 1)) * noise


def total(
    apply_discriminator: ApplyDiscriminator,
    real: jax.Array,
    fake: jax.Array,
    key: jax.Array,
    config: ConfigDict,
) -> jax.Array:
    """Compute the weighted sum of the penalties of `config.penalty`.

    Args:
        apply_discriminator: Function from images to logits, which includes the augmentation.
        real: Real images, `[B, H, W, C]`.
        fake: Fake images, of the same shape.
        key: Random key.
        config: `config.penalty`.
    """
    penalties = {
        'r1': lambda: r1(apply_discriminator, real),
        'r2': lambda: r1(apply_discriminator, fake),
        'wgan_gp': lambda: one_centered(apply_discriminator, interpolate(key, real, fake)),
        'dragan': lambda: one_centered(apply_discriminator, perturb(key, real)),
    }
    weighted = (config[name] * penalty() for name, penalty in penalties.items() if config[name])
    return sum(weighted, jnp.float32(0.0))


def is_used(config: ConfigDict) -> bool:
    """Return whether any penalty of `config.penalty` has a nonzero weight."""
    return any(config[name] for name in NAMES)

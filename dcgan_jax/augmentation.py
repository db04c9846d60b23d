"""Differentiable augmentation of the discriminator's inputs.

With DiffAugment (Zhao et al. 2020, arXiv:2006.10738), real and fake images are augmented in the
updates of both networks, so that G learns the distribution of images without augmentation. The
probability of augmentation may adapt to D's overfitting (ADA: Karras et al. 2020,
arXiv:2006.06676). Instance noise may be added (Sønderby et al. 2017, arXiv:1610.04490).
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict


def color(key: jax.Array, images: jax.Array) -> jax.Array:
    """Change brightness, saturation and contrast of each image (DiffAugment, appendix A).

    The computation uses float32; the result has the dtype of `images`.
    """
    size = (images.shape[0], 1, 1, 1)
    brightness, saturation, contrast = (
        jax.random.uniform(k, size, jnp.float32) for k in jax.random.split(key, 3)
    )
    x = images.astype(jnp.float32) + (brightness - 0.5)
    gray = jnp.mean(x, axis=3, keepdims=True)
    x = (x - gray) * (2.0 * saturation) + gray
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    return ((x - mean) * (contrast + 0.5) + mean).astype(images.dtype)


def translation(key: jax.Array, images: jax.Array) -> jax.Array:
    """Shift each image randomly by up to an eighth of its side along each axis, padding with 0."""
    rows, columns = (
        _shift_matrices(k, images.shape[0], side, images.dtype)
        for k, side in zip(jax.random.split(key), images.shape[1:3], strict=True)
    )
    # Matrix products with 0 and 1 replace a gather, whose gradient is a slow scatter. With the
    # default precision, GPUs and TPUs would round the pixels.
    exact = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    images = exact('bhi,biwc->bhwc', rows, images)
    return exact('bwj,bhjc->bhwc', columns, images)


def _shift_matrices(key: jax.Array, count: int, side: int, dtype: jnp.dtype) -> jax.Array:
    """Return random shifts as matrices `[count, side, side]`: row h selects pixel h + shift."""
    limit = int(side / 8 + 0.5)  # The authors' rounding; round() would round halves to even.
    shift = jax.random.randint(key, (count, 1, 1), -limit, limit + 1)
    position = jnp.arange(side)
    return (position[None, None, :] == position[None, :, None] + shift).astype(dtype)


def cutout(key: jax.Array, images: jax.Array) -> jax.Array:
    """Set a random square with half the image's side, which may cross the border, to zero."""
    inside = jnp.ones((images.shape[0], 1, 1, 1), bool)
    for axis, axis_key in zip((1, 2), jax.random.split(key), strict=True):
        side = images.shape[axis]
        size = (side + 1) // 2
        middle = jax.random.randint(axis_key, (images.shape[0], 1), 0, side + 1 - size % 2)
        first = middle - size // 2
        position = jnp.arange(side)[None]
        within = (position >= first) & (position < first + size)
        inside &= jnp.expand_dims(within, [a for a in (1, 2, 3) if a != axis])
    return jnp.where(inside, jnp.zeros((), images.dtype), images)


POLICIES = {'color': color, 'translation': translation, 'cutout': cutout}


def augment(
    key: jax.Array, images: jax.Array, policy: tuple[str, ...], probability: float | jax.Array
) -> jax.Array:
    """Apply each augmentation of a policy to each image independently with `probability`.

    Args:
        key: Random key.
        images: Images in [-1, 1], float `[B, H, W, C]`.
        policy: Keys of `POLICIES`, applied in order.
        probability: Probability in [0, 1], a number or a float32 scalar.

    Returns:
        Images of the same shape, whose values may leave [-1, 1].
    """
    for index, name in enumerate(policy):
        mask_key, policy_key = jax.random.split(jax.random.fold_in(key, index))
        augmented = POLICIES[name](policy_key, images)
        mask = jax.random.uniform(mask_key, (images.shape[0], 1, 1, 1)) < probability
        images = jnp.where(mask, augmented, images)
    return images


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Flip each image of a batch `[B, H, W, C]` horizontally with probability 0.5."""
    mask = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(mask, images[:, :, ::-1], images)


def rotate(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotate each image of a batch `[B, S, S, C]` by a random multiple of 90 degrees.

    Returns:
        The rotated images, and the number of counterclockwise rotations by 90 degrees, int32 `[B]`
        in [0, 4).
    """
    num_rot90 = jax.random.randint(key, images.shape[:1], 0, 4)
    rotated = images
    for count in (1, 2, 3):
        mask = (num_rot90 == count)[:, None, None, None]
        rotated = jnp.where(mask, jnp.rot90(images, count, axes=(1, 2)), rotated)
    return rotated, num_rot90


def noise_stddev(step: jax.Array, config: ConfigDict) -> jax.Array:
    """Return the standard deviation of the instance noise, which decays linearly to 0.

    Args:
        step: Training step, int32 scalar.
        config: `config.augment`; without `instance_noise_steps` the noise is constant.
    """
    if not config.instance_noise_steps:
        return jnp.float32(config.instance_noise)
    remaining = 1.0 - step.astype(jnp.float32) / config.instance_noise_steps
    return config.instance_noise * jnp.maximum(remaining, 0.0)


def augment_inputs(
    key: jax.Array,
    images: jax.Array,
    step: jax.Array,
    probability: float | jax.Array,
    config: ConfigDict,
) -> jax.Array:
    """Augment real or fake images and add instance noise.

    Args:
        key: Random key.
        images: Images, float `[B, H, W, C]`.
        step: Training step, int32 scalar.
        probability: Probability of each augmentation.
        config: `config.augment`.
    """
    images = augment(key, images, config.policy, probability)
    if config.instance_noise:
        noise = jax.random.normal(jax.random.fold_in(key, len(POLICIES)), images.shape)
        images = images + noise_stddev(step, config) * noise
    return images


def adapt(
    probability: jax.Array, real_logits: jax.Array, images: int, config: ConfigDict
) -> jax.Array:
    """Adapt the augmentation probability to D's overfitting (ADA).

    The probability increases while r_t = E[sign(D(x))] exceeds its target, and decreases otherwise.
    r_t is computed from one batch, instead of four as in the paper.

    Args:
        probability: Current probability, float32 scalar.
        real_logits: D's logits of real images, `[B, 1]`.
        images: Number of real images in the step. Over `config.ada_images` images, the probability
            changes by at most 1.
        config: `config.augment`.

    Returns:
        The new probability in [0, 1], float32 scalar.
    """
    overfit = jnp.mean(jnp.sign(real_logits))
    change = jnp.sign(overfit - config.ada_target) * (images / config.ada_images)
    return jnp.clip(probability + change, 0.0, 1.0)

"""What D sees of an image: differentiable augmentation and noise, for real and fake alike.

DiffAugment (Zhao et al. 2020, arXiv:2006.10738): D's inputs are augmented in its own update and in
G's, so that G learns the true distribution. The probability may adapt to D's overfitting (ADA,
Karras et al. 2020, arXiv:2006.06676). Instance noise: Sønderby et al. 2017, arXiv:1610.04490.
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict


def color(key: jax.Array, images: jax.Array) -> jax.Array:
    """Change brightness, saturation and contrast of each image (DiffAugment, appendix A).

    Draws and sums are float32 whatever the dtype of `images`, which the result has too, so that
    real and generated images are changed alike.
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
    """Shift each image by up to an eighth of its side in each direction, with zero padding."""
    rows, columns = (
        _shift_matrices(k, images.shape[0], side, images.dtype)
        for k, side in zip(jax.random.split(key), images.shape[1:3], strict=True)
    )
    # Products with 0 and 1 instead of a gather, whose gradient is a slow scatter. At the default
    # precision GPUs and TPUs would round the pixels that are moved.
    exact = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    images = exact('bhi,biwc->bhwc', rows, images)
    return exact('bwj,bhjc->bhwc', columns, images)


def _shift_matrices(key: jax.Array, count: int, side: int, dtype: jnp.dtype) -> jax.Array:
    """Random shifts as matrices `[count, side, side]`: row h takes pixel h + shift, or nothing."""
    most = int(side / 8 + 0.5)  # The authors' rounding; round() would give 0, 2, 4 for 4, 20, 36.
    shift = jax.random.randint(key, (count, 1, 1), -most, most + 1)
    position = jnp.arange(side)
    return (position[None, None, :] == position[None, :, None] + shift).astype(dtype)


def cutout(key: jax.Array, images: jax.Array) -> jax.Array:
    """Sets a square of half the image's side, anywhere (also partly outside), to zero."""
    inside = jnp.ones((images.shape[0], 1, 1, 1), bool)
    for axis, axis_key in zip((1, 2), jax.random.split(key), strict=True):
        side = images.shape[axis]
        cut = (side + 1) // 2
        middle = jax.random.randint(axis_key, (images.shape[0], 1), 0, side + 1 - cut % 2)
        first = middle - cut // 2
        position = jnp.arange(side)[None]
        within = (position >= first) & (position < first + cut)
        inside &= jnp.expand_dims(within, [a for a in (1, 2, 3) if a != axis])
    return jnp.where(inside, jnp.zeros((), images.dtype), images)


POLICIES = {'color': color, 'translation': translation, 'cutout': cutout}


def augment(
    key: jax.Array, images: jax.Array, policy: tuple[str, ...], probability: float | jax.Array
) -> jax.Array:
    """Applies each of `policy` to each image with `probability`, independently.

    Args:
        key: for all of it.
        images: float `[B, H, W, C]` in [-1, 1].
        policy: keys of `POLICIES`, applied in that order.
        probability: in [0, 1]; a number, or a float32 scalar.

    Returns:
        The same shape; colors may leave [-1, 1].
    """
    for index, name in enumerate(policy):
        which, how = jax.random.split(jax.random.fold_in(key, index))
        changed = POLICIES[name](how, images)
        chosen = jax.random.uniform(which, (images.shape[0], 1, 1, 1)) < probability
        images = jnp.where(chosen, changed, images)
    return images


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each of `[B, H, W, C]` left to right or not: more real images, no augmentation."""
    chosen = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def rotate(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotates each of square images `[B, S, S, C]` counterclockwise by 0 to 3 times 90 degrees.

    Returns:
        The images, and the numbers of rotations by 90 degrees, int32 `[B]`.
    """
    num_rot90 = jax.random.randint(key, images.shape[:1], 0, 4)
    rotated = images
    for count in (1, 2, 3):
        chosen = (num_rot90 == count)[:, None, None, None]
        rotated = jnp.where(chosen, jnp.rot90(images, count, axes=(1, 2)), rotated)
    return rotated, num_rot90


def noise_stddev(step: jax.Array, config: ConfigDict) -> jax.Array:
    """Standard deviation of the instance noise: linear from `instance_noise` to 0.

    Args:
        step: int32 scalar.
        config: `config.augment`; with `instance_noise_steps` of 0 the noise stays.
    """
    if not config.instance_noise_steps:
        return jnp.float32(config.instance_noise)
    left = 1.0 - step.astype(jnp.float32) / config.instance_noise_steps
    return config.instance_noise * jnp.maximum(left, 0.0)


def augment_inputs(
    key: jax.Array,
    images: jax.Array,
    step: jax.Array,
    probability: float | jax.Array,
    config: ConfigDict,
) -> jax.Array:
    """Images as D sees them at a step, real or fake: augmented, then noisy.

    Args:
        key: for this batch.
        images: float `[B, H, W, C]`.
        step: int32 scalar.
        probability: of each augmentation.
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
    """ADA's rule: p rises while r_t = E[sign(D(x))] is above its target, else it falls.

    r_t is of one batch here, of four in the paper: p wavers by a batch's share more.

    Args:
        probability: float32 scalar p.
        real_logits: D's `[B, 1]` of real images.
        images: real images of the step; p goes from 0 to 1 in `config.ada_images`.
        config: `config.augment`.

    Returns:
        The next p, in [0, 1].
    """
    overfit = jnp.mean(jnp.sign(real_logits))
    move = jnp.sign(overfit - config.ada_target) * (images / config.ada_images)
    return jnp.clip(probability + move, 0.0, 1.0)

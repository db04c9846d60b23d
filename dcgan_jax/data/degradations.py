"""Inputs of the generator: latents, or degraded images.

Degraded images are `[B, H, W, C + 1]` float32: the image in [-1, 1], and a mask channel that is 1
where the generator may change the image and 0 elsewhere.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

KINDS = ('latent', 'low_resolution', 'masked', 'gray')
MASKS = ('center', 'half', 'pixels', 'free_form')
_STROKES = 4
_MAX_SIDE = 1024  # Longer sides are upsampled in chunks.
_CUBIC_RADIUS = 2  # Radius of the bicubic filter in pixels of the small image.
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's mode L.


def takes_images(config: ConfigDict) -> bool:
    """Return whether the generator takes images instead of latents."""
    return config.input.kind != 'latent'


def sample_inputs(key: jax.Array, config: ConfigDict, real: jax.Array) -> jax.Array:
    """Sample latents, or degrade images as configured in `config.input`.

    The inputs are not augmented; augmentations are only applied to the discriminator's inputs
    (DiffAugment: Zhao et al. 2020, arXiv:2006.10738, section 3.2).

    Args:
        key: Random key.
        config: The run's config.
        real: Images in [-1, 1], `[B, H, W, C]`.

    Returns:
        Latents, float32 `[B, latent_dim]`, or degraded images, float32 `[B, H, W, C + 1]`.
    """
    kind, scale = config.input.kind, config.input.scale
    if kind == 'latent':
        return sample_latents(key, len(real), config.latent_dim)
    if kind == 'low_resolution':
        return with_full_mask(upsample(quantize(downsample(real, scale)), scale))
    if kind == 'gray':
        return with_full_mask(quantize(to_gray(real)))
    return apply_mask(
        real, MASK_FUNCTIONS[config.input.mask](key, real.shape, config.input.mask_ratio)
    )


def degrade(config: ConfigDict, images: jax.Array, inputs: jax.Array) -> jax.Array:
    """Degrade images in the same way as `inputs`, without quantization; differentiable.

    Args:
        config: The run's config; `config.input.kind` is not 'latent'.
        images: Images in [-1, 1], `[B, H, W, C]`.
        inputs: Degraded images, `[B, H, W, C + 1]`, whose masks are used.

    Returns:
        Images, `[B, H, W, C]`; equal to `inputs[..., :C]` up to quantization if `inputs` are the
        degraded `images`.
    """
    if config.input.kind == 'low_resolution':
        return upsample(downsample(images, config.input.scale), config.input.scale)
    if config.input.kind == 'gray':
        return to_gray(images)
    return images * (1.0 - inputs[..., -1:])


def sample_latents(key: jax.Array, count: int, latent_dim: int) -> jax.Array:
    """Sample latents from N(0, I), float32 `[count, latent_dim]`."""
    return jax.random.normal(key, (count, latent_dim))


def with_full_mask(images: jax.Array) -> jax.Array:
    """Append a mask of ones to images `[B, H, W, C]`."""
    return jnp.concatenate([images, jnp.ones_like(images[..., :1])], axis=-1)


def apply_mask(images: jax.Array, holes: jax.Array) -> jax.Array:
    """Set masked pixels to 0 and append the mask, `[B or 1, H, W, 1]`, to images `[B, H, W, C]`."""
    holes = jnp.broadcast_to(holes, (*images.shape[:3], 1))
    return jnp.concatenate([images * (1.0 - holes), holes], axis=-1)


def to_gray(images: jax.Array) -> jax.Array:
    """Replace RGB images `[B, H, W, 3]` by their luma in all three channels."""
    luma = jnp.sum(images * jnp.asarray(_LUMA).reshape(1, 1, 1, 3), axis=-1, keepdims=True)
    return jnp.broadcast_to(luma, images.shape)


def downsample(images: jax.Array, scale: int) -> jax.Array:
    """Downsample `[B, H, W, C]` with an antialiased bicubic filter.

    The filter is that of Keys 1981 with a = -0.5, as in Pillow's BICUBIC.
    """
    batch, height, width, channels = images.shape
    shape = (batch, height // scale, width // scale, channels)
    return jax.image.resize(images, shape, 'cubic', antialias=True)


def upsample(images: jax.Array, scale: int) -> jax.Array:
    """Upsample `[B, h, w, C]` with the bicubic filter of `downsample` and clip to [-1, 1]."""
    batch, height, width, channels = images.shape
    if max(height, width) > _MAX_SIDE:
        large = _upsample_axis(_upsample_axis(images, scale, 1), scale, 2)
    else:
        shape = (batch, height * scale, width * scale, channels)
        large = jax.image.resize(images, shape, 'cubic')
    return jnp.clip(large, -1.0, 1.0)


def _upsample_axis(images: jax.Array, scale: int, axis: int) -> jax.Array:
    """Upsample one axis in chunks, because `jax.image.resize` multiplies it by a dense matrix."""
    size, chunks = images.shape[axis], []
    for first in range(0, size, _MAX_SIDE):
        start, end = max(first - _CUBIC_RADIUS, 0), min(first + _MAX_SIDE, size)
        chunk = jax.lax.slice_in_dim(images, start, min(end + _CUBIC_RADIUS, size), axis=axis)
        shape = [*chunk.shape]
        shape[axis] *= scale
        large = jax.image.resize(chunk, shape, 'cubic')
        core = (first - start) * scale, (end - start) * scale
        chunks.append(jax.lax.slice_in_dim(large, *core, axis=axis))
    return jnp.concatenate(chunks, axis)


def quantize(images: jax.Array) -> jax.Array:
    """Round images in [-1, 1] to 256 levels, as in image files."""
    return jnp.round(jnp.clip(images, -1.0, 1.0) * 127.5 + 127.5) / 127.5 - 1.0


def center_mask(key: jax.Array, shape: tuple[int, ...], mask_ratio: float) -> jax.Array:
    """Mask a central square of half the size (Pathak et al. 2016, arXiv:1604.07379)."""
    del key, mask_ratio
    batch, height, width, _ = shape
    rows, columns = (
        (jnp.arange(side) >= side // 4) & (jnp.arange(side) < side // 4 + side // 2)
        for side in (height, width)
    )
    hole = rows[:, None] & columns[None]
    return jnp.broadcast_to(hole[None, :, :, None], (batch, height, width, 1)).astype(jnp.float32)


def half_mask(key: jax.Array, shape: tuple[int, ...], mask_ratio: float) -> jax.Array:
    """Mask the right half."""
    del key, mask_ratio
    batch, height, width, _ = shape
    hole = jnp.arange(width) >= width // 2
    shape = (batch, height, width, 1)
    return jnp.broadcast_to(hole[None, None, :, None], shape).astype(jnp.float32)


def pixel_mask(key: jax.Array, shape: tuple[int, ...], mask_ratio: float) -> jax.Array:
    """Mask each pixel with probability `mask_ratio` (Yeh et al. 2017, arXiv:1607.07539: 0.8)."""
    return jax.random.bernoulli(key, mask_ratio, (*shape[:3], 1)).astype(jnp.float32)


def free_form_mask(key: jax.Array, shape: tuple[int, ...], mask_ratio: float) -> jax.Array:
    """Mask four thick lines between random points."""
    del mask_ratio
    batch, height, width, _ = shape
    ends_key, width_key = jax.random.split(key)
    size = jnp.asarray([height, width], jnp.float32)
    ends = jax.random.uniform(ends_key, (batch, _STROKES, 2, 2)) * size.reshape(1, 1, 1, 2)
    radius = jax.random.uniform(width_key, (batch, _STROKES), minval=0.03, maxval=0.09)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing='ij'), axis=-1)
    points = grid.astype(jnp.float32).reshape(1, 1, -1, 2) + 0.5
    start, direction = ends[:, :, :1], ends[:, :, 1:] - ends[:, :, :1]
    along = jnp.sum((points - start) * direction, axis=-1, keepdims=True) / (
        jnp.sum(direction * direction, axis=-1, keepdims=True) + 1e-6
    )
    nearest = start + jnp.clip(along, 0.0, 1.0) * direction
    distance = jnp.linalg.norm(points - nearest, axis=-1)
    hole = jnp.any(distance <= radius[..., None] * max(height, width), axis=1)
    return hole.reshape(batch, height, width, 1).astype(jnp.float32)


MASK_FUNCTIONS: dict[str, Callable[..., jax.Array]] = dict(
    zip(MASKS, (center_mask, half_mask, pixel_mask, free_form_mask), strict=True)
)

"""Pixels: floats in [-1, 1] inside, uint8 at the borders; crops, grids, PNG and GIF files."""

import io
import math

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from PIL import Image

from dcgan_jax.runtime.files import write_atomic


def to_float(images: jax.Array) -> jax.Array:
    """uint8 `[...]` in 0..255 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: jax.Array) -> jax.Array:
    """Floats `[...]` in [-1, 1] to uint8, rounded to nearest; what lies outside is clipped."""
    pixels = jnp.round((images.astype(jnp.float32) + 1.0) * 127.5)
    return jnp.clip(pixels, 0.0, 255.0).astype(jnp.uint8)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Crops a picture to its central square, then resizes that to `size` pixels a side.

    By Pillow's antialiased Lanczos filter, which StyleGAN2-ADA's data set tool takes by default:
    at ratios that are no integers (178 to 64 for CelebA) a box filter gives neighbors uneven
    shares, and it blurs more. A square that has the size already stays as it is.

    Args:
        image: uint8 `[H, W, C]`, C from 1 to 4.
        size: at least 1; may be more than H and W.

    Returns:
        uint8 `[size, size, C]`.
    """
    height, width, channels = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    picture = Image.fromarray(square[..., 0] if channels == 1 else square)
    resized = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))
    return resized.reshape(size, size, channels)


def grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Puts pictures side by side on white, row by row.

    Args:
        images: uint8 `[N, H, W, C]`, N at least 1.
        columns: pictures a row; about the square root of N when None.
        gap: white pixels between pictures and around them.

    Returns:
        uint8 `[rows * (H + gap) + gap, columns * (W + gap) + gap, C]`.
    """
    count, height, width, channels = images.shape
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    rows = -(-count // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    canvas = np.full(shape, 255, np.uint8)
    for index, image in enumerate(images):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def write_png(path: epath.PathLike, image: np.ndarray) -> epath.Path:
    """Writes uint8 `[H, W, C]` (C 1 or 3) as a PNG, making its folder.

    Returns:
        The path written.
    """
    encoded = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(encoded, format='PNG')
    return write_atomic(path, encoded.getvalue())


def write_gif(path: epath.PathLike, frames: np.ndarray, milliseconds: int) -> epath.Path:
    """Writes uint8 `[N, H, W, C]` (C 1 or 3) as a GIF that repeats, `milliseconds` a frame."""
    frames = frames[..., 0] if frames.shape[-1] == 1 else frames
    pictures = [Image.fromarray(frame) for frame in frames]
    encoded = io.BytesIO()
    pictures[0].save(
        encoded, 'GIF', save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0
    )
    return write_atomic(path, encoded.getvalue())

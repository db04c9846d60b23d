"""Conversion and cropping of images, image grids, and writers of PNG and GIF files."""

import io
import math

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from PIL import Image

from dcgan_jax.runtime.files import write_atomic


def to_float(images: jax.Array) -> jax.Array:
    """Convert uint8 images to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: jax.Array) -> jax.Array:
    """Convert images in [-1, 1] to uint8 by rounding; other values are clipped."""
    pixels = jnp.round((images.astype(jnp.float32) + 1.0) * 127.5)
    return jnp.clip(pixels, 0.0, 255.0).astype(jnp.uint8)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Crop the central square of an image and resize it with Pillow's Lanczos filter.

    StyleGAN2-ADA's data set tool uses the same filter by default. A square of the right size is not
    resized.

    Args:
        image: Image, uint8 `[H, W, C]` with C from 1 to 4.
        size: Size of the result, at least 1; may exceed H and W.

    Returns:
        Image, uint8 `[size, size, C]`.
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
    """Arrange images in a grid on a white background, row by row.

    Args:
        images: Images, uint8 `[N, H, W, C]` with N at least 1.
        columns: Number of columns; defaults to about the square root of N.
        gap: Number of white pixels between and around images.

    Returns:
        Image, uint8 `[rows * (H + gap) + gap, columns * (W + gap) + gap, C]`.
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
    """Write an image, uint8 `[H, W, C]` with C = 1 or 3, as a PNG file and return its path."""
    encoded = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(encoded, format='PNG')
    return write_atomic(path, encoded.getvalue())


def write_gif(path: epath.PathLike, frames: np.ndarray, milliseconds: int) -> epath.Path:
    """Write frames, uint8 `[N, H, W, C]` with C = 1 or 3, as a looping GIF and return its path."""
    frames = frames[..., 0] if frames.shape[-1] == 1 else frames
    pictures = [Image.fromarray(frame) for frame in frames]
    encoded = io.BytesIO()
    pictures[0].save(
        encoded, 'GIF', save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0
    )
    return write_atomic(path, encoded.getvalue())

"""User-supplied images: an npz file, or a local folder of image files."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dcgan_jax.data.image_folder import ImageFolder
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import read_npz

MAX_BYTES = 2**33  # Largest size of an npz file's arrays.
_BATCH_SIZE = 64


class Images(NamedTuple):
    """Batches of images, which can be iterated once.

    Attributes:
        batches: Batches, each uint8 `[b, H, W, C]`.
        count: Total number of images.
    """

    batches: Iterator[np.ndarray]
    count: int


def open_images(path: os.PathLike | str) -> Images:
    """Open an npz file (key `images`, or its only array) or a folder of image files.

    Raises:
        UserError: If there are no images, they are too large, or not uint8 of one size.
    """
    # The pathlib equivalents raise for unknown users and for names that are too long.
    path = pathlib.Path(os.path.expanduser(path))
    if os.path.isdir(path):
        folder = ImageFolder(path, '--images')
        folder.check_sizes('use images of the same size')
        return Images(_read_folder(folder), len(folder))
    images = _read_array(path)
    batches = (images[start : start + _BATCH_SIZE] for start in range(0, len(images), _BATCH_SIZE))
    return Images(batches, len(images))


def _read_array(path: pathlib.Path) -> np.ndarray:
    try:
        arrays = read_npz(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f'--images={path} cannot be read ({error}): use a folder of image files, or an npz '
            'file with an array `images`'
        ) from error
    name = next(iter(arrays)) if len(arrays) == 1 else 'images'
    if name not in arrays:
        raise UserError(f'--images={path} has arrays {sorted(arrays)}: name one of them `images`')
    images = arrays[name]
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f'--images={path}: `{name}` is {images.dtype} {list(images.shape)}; it must be uint8 '
            '[N, H, W, C]'
        )
    return images


def _read_folder(folder: ImageFolder) -> Iterator[np.ndarray]:
    for start in range(0, len(folder), _BATCH_SIZE):
        indices = range(start, min(start + _BATCH_SIZE, len(folder)))
        yield np.stack([record['image'] for record in folder.__getitems__(list(indices))])

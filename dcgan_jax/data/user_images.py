"""Anybody's images: an npz file, or a local folder of picture files."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dcgan_jax.data.image_folder import ImageFolder
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import read_npz

MOST_BYTES = 2**33  # of an npz file's arrays
_BATCH = 64


class Images(NamedTuple):
    """Images to be read once.

    Attributes:
        batches: uint8 `[b, H, W, C]` each.
        count: images in all.
    """

    batches: Iterator[np.ndarray]
    count: int


def open_images(path: os.PathLike | str) -> Images:
    """Opens an npz file (key `images`, or its only array) or a folder, as data set 'folder' does.

    Raises:
        UserError: there are no images, they are too large, or not uint8 and all of one size.
    """
    # pathlib raises for users that are not known, and for names that are too long.
    path = pathlib.Path(os.path.expanduser(path))
    if os.path.isdir(path):
        folder = ImageFolder(path, '--images')
        folder.check_sizes('give images of one size')
        return Images(_read_folder(folder), len(folder))
    images = _read_array(path)
    pieces = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return Images(pieces, len(images))


def _read_array(path: pathlib.Path) -> np.ndarray:
    try:
        arrays = read_npz(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f'--images={path} can not be read ({error}): give a folder of picture files, or '
            'an npz file with an array `images`'
        ) from error
    name = next(iter(arrays)) if len(arrays) == 1 else 'images'
    if name not in arrays:
        raise UserError(f'--images={path} has arrays {sorted(arrays)}: name one of them `images`')
    images = arrays[name]
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f'--images={path}: `{name}` is {images.dtype} {list(images.shape)}, and must be uint8 '
            '[N, H, W, C], from 0 to 255'
        )
    return images


def _read_folder(folder: ImageFolder) -> Iterator[np.ndarray]:
    for start in range(0, len(folder), _BATCH):
        indices = range(start, min(start + _BATCH, len(folder)))
        yield np.stack([record['image'] for record in folder.__getitems__(list(indices))])

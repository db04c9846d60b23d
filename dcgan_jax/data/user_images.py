"""User-supplied images: an npz file, or a local folder of image files."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dcgan_jax.data.image_folder import ImageFolder
from dcgan_jax.data.images import center_crop
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


def open_folder(path: os.PathLike | str, fields: ConfigDict, size: int) -> ImageFolder:
    """Open a folder of image files for `read_folder`.

    Args:
        path: Path of the folder.
        fields: The run's `config.data`, whose `max_pixels` and `image_size` apply.
        size: See `read_folder`.

    Raises:
        UserError: If there are no images, one cannot be decoded, or they have different sizes and
            `size` is 0.
    """
    folder = ImageFolder(path, '--images', max_pixels=fields.max_pixels)
    if size:
        _log_resizing(size)
    else:
        folder.check_sizes('use images of the same size')
    return folder


def read_folder(folder: ImageFolder, size: int) -> Iterator[np.ndarray]:
    """Yield batches of images, uint8 `[b, H, W, C]`.

    Args:
        folder: See `open_folder`.
        size: Size to which images are cropped and resized, as in training; 0 to use them as stored.
    """
    for start in range(0, len(folder), _BATCH_SIZE):
        indices = range(start, min(start + _BATCH_SIZE, len(folder)))
        # Images may be large before they are resized, so they are read one by one.
        images = (folder.__getitems__([index])[0]['image'] for index in indices)
        yield np.stack([_resize(image, size) for image in images])


def open_images(path: os.PathLike | str, fields: ConfigDict) -> Images:
    """Open an npz file (the array `images`, or its only array) or a folder of image files.

    Images are cropped and resized to `config.data.image_size`, if it is set, as in training.

    Args:
        path: Path of the file or folder.
        fields: The run's `config.data`, whose `max_pixels` and `image_size` apply.

    Raises:
        UserError: If there are no images, an image cannot be decoded or is too large, or the images
            are not uint8 or not of the same size.
    """
    # The pathlib equivalents raise for unknown users and for names that are too long.
    path = pathlib.Path(os.path.expanduser(path))
    if os.path.isdir(path):
        folder = open_folder(path, fields, fields.image_size)
        return Images(read_folder(folder, fields.image_size), len(folder))
    images = _read_array(path)
    if fields.image_size:
        _log_resizing(fields.image_size)
    batches = (
        np.stack(
            [_resize(image, fields.image_size) for image in images[start : start + _BATCH_SIZE]]
        )
        for start in range(0, len(images), _BATCH_SIZE)
    )
    return Images(batches, len(images))


def _log_resizing(size: int) -> None:
    logging.info(
        '--images: the central square of each image is resized to %dx%d pixels, as in training '
        '(config.data.image_size)', size, size,
    )  # fmt: skip


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    return center_crop(image, size) if size else image


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
    is_valid = images.dtype == np.uint8 and images.ndim == 4 and images.size
    if not is_valid or images.shape[3] not in (1, 3):
        raise UserError(
            f'--images={path}: `{name}` is {images.dtype} {list(images.shape)}; it must be a '
            'non-empty uint8 array [N, H, W, C] with C = 1 or 3'
        )
    return images

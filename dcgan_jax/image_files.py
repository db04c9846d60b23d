"""Anybody's images: an npz file, or a local folder of PNG and JPEG files."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from dcgan_jax.errors import UserError
from dcgan_jax.files import read_npz

MOST_PIXELS = 2**24  # of one image: 4096 x 4096
MOST_BYTES = 2**33  # of an npz file's arrays
_SUFFIXES = ('.png', '.jpg', '.jpeg')
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
    """Opens an npz file (key `images`, or its only array) or a folder, read with its subfolders.

    Raises:
        UserError: there are no images, they are too large, or not uint8 and all of one size. A
            folder's images are looked at when they are read.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob('*') if file.suffix.lower() in _SUFFIXES)
        if not files:
            raise UserError(f'--images={path} has no {", ".join(_SUFFIXES)} files: give another')
        return Images(_read_files(files), len(files))
    images = _read_array(path)
    pieces = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return Images(pieces, len(images))


def _read_array(path: pathlib.Path) -> np.ndarray:
    try:
        arrays = read_npz(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f'--images={path} can not be read ({error}): give a folder of PNG or JPEG files, or '
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


def _read_files(files: list[pathlib.Path]) -> Iterator[np.ndarray]:
    first = None
    for start in range(0, len(files), _BATCH):
        images = []
        for file in files[start : start + _BATCH]:
            image = _read_file(file)
            first = image.shape if first is None else first
            if image.shape != first:
                raise UserError(
                    f'--images: {file} has shape {image.shape}, and {files[0]} {first}: give '
                    'images of one size'
                )
            images.append(image)
        yield np.stack(images)


def _read_file(file: pathlib.Path) -> np.ndarray:
    """uint8 [H, W, C]; the size is known, and checked, before anything is decoded."""
    try:
        with file.open('rb') as content, Image.open(content, formats=['PNG', 'JPEG']) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(
                    f'--images: {file} has {image.width}x{image.height} pixels, more than '
                    f'{MOST_PIXELS:,} in all: give smaller images'
                )
            if image.mode not in ('L', 'RGB'):
                raise UserError(
                    f'--images: {file} is of mode {image.mode}: convert it to RGB, or to 8-bit grey'
                )
            pixels = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f'--images: {file} can not be read ({error}): remove it') from error
    return pixels[..., None] if pixels.ndim == 2 else pixels

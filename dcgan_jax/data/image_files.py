"""Reader of image files: supported formats, and conversion to 8-bit grayscale or RGB."""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from dcgan_jax.runtime.errors import UserError

# Formats that are decoded, for any suffix of the file. AVIF needs Pillow 11.3; HEIF needs a plugin.
_FORMATS = (
    'PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'AVIF', 'HEIF', 'JPEG2000', 'PPM',
)  # fmt: skip
MAX_PIXELS = 2**26  # Default limit, as a protection against decompression bombs.
_MAX_BITS = 16
_GRAY_MODES = ('1', 'L', 'LA', 'La')
_COLOR_MODES = ('P', 'PA', 'RGB', 'RGBA', 'RGBa', 'RGBX', 'CMYK', 'YCbCr')
_ORIENTATION = 0x0112  # EXIF tag; its values 5 to 8 swap width and height.
_TIFF_SIZE = 256, 257
_TIFF_BITS = 258
_TIFF_PHOTOMETRIC = 262  # 0: the largest value is black.


class Header(NamedTuple):
    """Properties of an image file that are known without decoding its pixels.

    Attributes:
        size: (width, height) of the upright image, i.e. after its EXIF orientation is applied.
        is_gray: Whether the image is grayscale.
        has_16_bits: Whether the image is grayscale with more than 8 bits per pixel.
    """

    size: tuple[int, int]
    is_gray: bool
    has_16_bits: bool


def supported_formats() -> dict[str, str]:
    """Return the supported formats that Pillow can read, by lowercase suffix such as '.png'."""
    formats = _formats()
    return {suffix: name for suffix, name in PIL.Image.EXTENSION.items() if name in formats}


def read_header(path: Path, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of an image file.

    Args:
        path: Path of the file.
        max_pixels: Largest allowed number of pixels.

    Raises:
        UserError: If the file is not a supported image or has too many pixels.
    """
    try:
        with _open(path) as picture:
            size, mode, file_format = _upright_size(path, picture), picture.mode, picture.format
    except Exception as error:
        raise _undecodable(path, error) from error
    if size[0] * size[1] > max_pixels:
        raise UserError(
            f'{path} has {size[0]}x{size[1]} pixels, more than {max_pixels}: resize or remove it, '
            'or increase config.data.max_pixels'
        )
    has_16_bits = _has_16_bits(mode, file_format)
    if not has_16_bits and mode not in _GRAY_MODES + _COLOR_MODES:
        raise UserError(
            f'{path} has pixels of an unsupported type (mode {mode} of Pillow): convert it to 8 '
            'bits per channel or 16-bit gray, or remove it'
        )
    return Header(size, has_16_bits or mode in _GRAY_MODES, has_16_bits)


def read_image(path: str | os.PathLike, mode: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an upright image; transparent pixels are composited on white.

    16-bit gray values are scaled to 8 bits: the largest value of the format becomes 255.

    Args:
        path: Path of the file.
        mode: 'L' or 'RGB'.
        max_pixels: Largest allowed number of pixels.

    Returns:
        uint8 [H, W, C] with C = 1 or 3.

    Raises:
        UserError: If the file is not a supported image or has too many pixels.
    """
    path = Path(os.path.expanduser(path))
    read_header(path, max_pixels)
    return decode(path, mode)


def decode(path: Path, mode: str) -> np.ndarray:
    """Read an image whose header was checked by `read_header`; see `read_image`."""
    try:
        with _open(path) as stored:
            picture = PIL.ImageOps.exif_transpose(stored)
            if _has_16_bits(stored.mode, stored.format):
                picture = _to_8_bits(stored, picture)
            elif picture.has_transparency_data:
                picture = picture.convert('RGBA')
                white = PIL.Image.new('RGBA', picture.size, 'white')
                picture = PIL.Image.alpha_composite(white, picture)
            pixels = np.asarray(picture.convert(mode))
    except Exception as error:
        raise _undecodable(path, error) from error
    return pixels.reshape(*pixels.shape[:2], -1)


@functools.cache
def _register_plugins() -> None:
    PIL.Image.init()
    with contextlib.suppress(ImportError):  # Optional plugin for HEIF, the format of iPhones.
        import pillow_heif

        pillow_heif.register_heif_opener()


def _formats() -> list[str]:
    """Return the names of the supported formats that Pillow can read."""
    _register_plugins()
    return [name for name in _FORMATS if name in PIL.Image.OPEN]


@contextlib.contextmanager
def _open(path: Path) -> Iterator[PIL.Image.Image]:
    with warnings.catch_warnings():
        # Pillow warns at its own limit, which is smaller; `read_header` checks `max_pixels`.
        warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)
        picture = PIL.Image.open(path, formats=_formats())
    with picture:
        yield picture


def _upright_size(path: Path, picture: PIL.Image.Image) -> tuple[int, int]:
    """Return (width, height) after the EXIF orientation is applied."""
    size = picture.size
    if picture.format == 'TIFF':  # Some versions of Pillow already apply the orientation to `size`.
        size = tuple(picture.tag_v2[tag] for tag in _TIFF_SIZE)
    if picture.format == 'PNG' and 'exif' not in picture.info and _has_exif_chunk(path):
        picture.load()  # Pillow reads the chunk after the pixels.
    # Pillow's PNG class overrides this method, and the override decodes all pixels.
    exif = PIL.Image.Image.getexif(picture)
    return size[::-1] if exif.get(_ORIENTATION) in (5, 6, 7, 8) else size


def _has_exif_chunk(path: Path) -> bool:
    """Return whether a PNG file has an eXIf chunk, without reading its pixels."""
    with open(path, 'rb') as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            if header[4:] in (b'eXIf', b'IEND'):  # Recovered files may have padding after IEND.
                return header[4:] == b'eXIf'
            file.seek(int.from_bytes(header[:4]) + 4, os.SEEK_CUR)
    return False


def _has_16_bits(mode: str, file_format: str | None) -> bool:
    # Mode 'I' is 16-bit gray in PNG and PPM files, but 32-bit or signed in TIFF files.
    return mode.startswith('I;16') or (mode == 'I' and file_format in ('PNG', 'PPM'))


def _to_8_bits(stored: PIL.Image.Image, picture: PIL.Image.Image) -> PIL.Image.Image:
    """Scale gray values to 8 bits; TIFF files may declare fewer than 16 bits, e.g. 12."""
    tags = stored.tag_v2 if stored.format == 'TIFF' else {}
    values = np.asarray(picture).astype(np.float64)
    bits = tags[_TIFF_BITS][0] if _TIFF_BITS in tags else _MAX_BITS
    gray = np.round(values * (255 / (2**bits - 1))).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:
        gray = 255 - gray
    if isinstance(transparent := stored.info.get('transparency'), int):
        gray[values == transparent] = 255
    return PIL.Image.fromarray(gray)


def _undecodable(path: Path, error: Exception) -> UserError:
    """Return a UserError that describes an exception raised by a decoder."""
    reason = str(error).strip().partition('\n')[0] or type(error).__name__
    return UserError(f'{path} cannot be decoded ({reason}): repair or remove it')

"""Data set of the PNG, JPEG, WebP and BMP files in a folder and its subfolders.

    --config.dataset=folder --config.data_dir=PATH

If every file is in a direct subfolder of PATH, the subfolders are the classes.
"""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import tqdm

from dcgan_jax.runtime.errors import UserError

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
_FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP')  # The only decoders used, independent of the suffix.
_FORMAT_NAMES = 'PNG, JPEG, WebP or BMP'
_MAX_PIXELS = 2**26  # Protects against decompression bombs.
_GRAY_MODES = ('1', 'L', 'LA')
_MODES = (*_GRAY_MODES, 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # With 8 bits per channel.


class ImageFolder:
    """Images of a folder as records, sorted by name.

    A record has 'image', uint8 [H, W, C], oriented according to its EXIF data, and 'label' if there
    are classes. C is 1 if all images are grayscale, else 3. Transparent images are composited on
    white.

    Attributes:
      name: 'folder/NAME-HASH' with a hash of the names and sizes of all files.
      files: Paths of the images, sorted by their names relative to the folder.
      classes: Sorted names of the classes; empty if there are none.
      channels: C.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        field: str = 'config.data_dir',
        skip_corrupt: bool = False,
    ):
        """Find the images and read the header of each.

        Hidden files and files with other suffixes are ignored; links to folders are not followed.

        Args:
          root: The folder.
          field: Name of the setting in error messages.
          skip_corrupt: Whether to accept files that cannot be decoded; reading them then fails.

        Raises:
          UserError: If there is no such folder or no image, or a file is damaged, larger than 64
            megapixels, or has more than 8 bits per channel.
        """
        # The pathlib equivalents raise for unknown users and for names that are too long.
        root = Path(os.path.expanduser(root)).absolute()
        if not os.path.isdir(root):
            raise UserError(
                f'{field}={root} is not a folder: use a folder with {_FORMAT_NAMES} files'
            )
        names = _find(root)
        if not names:
            raise UserError(f'{field}={root} has no {_FORMAT_NAMES} files: use another folder')
        self.files = [root / name for name in names]
        self.name = f'folder/{root.name}-{_digest(names, self.files)}'
        folders = [Path(name).parts[:-1] for name in names]
        has_classes = all(len(parts) == 1 for parts in folders)
        self.classes = sorted({parts[0] for parts in folders}) if has_classes else []
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._labels = [numbers[parts[0]] for parts in folders] if has_classes else []
        self._sizes, is_gray = {}, True
        bar = tqdm.tqdm(self.files, desc=f'Scanning {root}', delay=3, disable=None)
        for index, path in enumerate(bar):
            try:
                self._sizes[index], mode = _read_header(path)
                is_gray = is_gray and mode in _GRAY_MODES
            except UserError:
                if not skip_corrupt:
                    raise
        if not self._sizes:
            raise UserError(f'{field}={root} has only damaged images: use another folder')
        self.channels = 1 if is_gray else 3

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> list[dict]:
        records = []
        for index in indices:
            if index not in self._sizes:
                _read_header(self.files[index])  # Raises the error of the corrupt file.
            record = {'image': _decode(self.files[index], 'L' if self.channels == 1 else 'RGB')}
            if self.classes:
                record['label'] = self._labels[index]
            records.append(record)
        return records

    def side(self, remedy: str) -> int:
        """Return the side length if all images are squares of the same size.

        Raises:
          UserError: If they are not; the message ends with `remedy`.
        """
        first, (width, height) = next(iter(self._sizes.items()))
        if width != height:
            path = self.files[first]
            raise UserError(f'{path} has {width}x{height} pixels, not a square: {remedy}')
        self.check_sizes(remedy)
        return width

    def check_sizes(self, remedy: str) -> None:
        """Raise `UserError`, which ends with `remedy`, unless all images have the same size."""
        first, size = next(iter(self._sizes.items()))
        for index, (width, height) in self._sizes.items():
            if (width, height) != size:
                raise UserError(
                    f'{self.files[index]} has {width}x{height} pixels, {self.files[first]} '
                    f'{size[0]}x{size[1]}: {remedy}'
                )


def read_image(path: str | os.PathLike, mode: str) -> np.ndarray:
    """Read an image in the same way as `ImageFolder`.

    Args:
      path: Path of the file.
      mode: 'L' or 'RGB'.

    Returns:
      uint8 [H, W, C] with C = 1 or 3.

    Raises:
      UserError: If the file is not a supported image.
    """
    path = Path(os.path.expanduser(path))
    _read_header(path)
    return _decode(path, mode)


def _find(root: Path) -> list[str]:
    """Return the sorted POSIX paths of the image files relative to `root`."""
    names = []
    try:
        for folder, subfolders, files in os.walk(root, onerror=_raise):
            subfolders[:] = [name for name in subfolders if not name.startswith('.')]
            parent = Path(folder).relative_to(root)
            names += [
                (parent / name).as_posix()
                for name in files
                if name.lower().endswith(_SUFFIXES) and not name.startswith('.')
            ]
    except OSError as error:
        raise UserError(
            f'{error.filename} cannot be read ({error.strerror}): make it readable, or set '
            'config.data_dir to another folder'
        ) from error
    return sorted(names)


def _raise(error: OSError) -> None:
    raise error


def _digest(names: list[str], files: list[Path]) -> str:
    content = hashlib.sha256()
    for name, path in zip(names, files, strict=True):
        size = path.stat().st_size if path.exists() else 0  # A dangling link is reported later.
        content.update(os.fsencode(name) + b'\0' + str(size).encode() + b'\0')
    return content.hexdigest()[:12]


def _read_header(path: Path) -> tuple[tuple[int, int], str]:
    """Return ((width, height), Pillow's mode) of a supported image."""
    try:
        with warnings.catch_warnings():
            # Pillow warns at its own, smaller limit; `_MAX_PIXELS` is checked below.
            warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=_FORMATS) as picture:
                size, mode = picture.size, picture.mode
    except Exception as error:
        raise _undecodable(path, error) from error
    if size[0] * size[1] > _MAX_PIXELS:
        raise UserError(
            f'{path} has {size[0]}x{size[1]} pixels, more than {_MAX_PIXELS}: resize or remove it'
        )
    if mode not in _MODES:
        raise UserError(
            f'{path} does not have 8 bits per channel (its mode is {mode}): convert or remove it'
        )
    return size, mode


def _decode(path: Path, mode: str) -> np.ndarray:
    """Return an image as uint8 [H, W, C], where C is 1 for mode 'L' and 3 for 'RGB'."""
    try:
        with PIL.Image.open(path, formats=_FORMATS) as stored:
            picture = PIL.ImageOps.exif_transpose(stored)
            if picture.has_transparency_data:
                picture = picture.convert('RGBA')
                white = PIL.Image.new('RGBA', picture.size, 'white')
                picture = PIL.Image.alpha_composite(white, picture)
            pixels = np.asarray(picture.convert(mode))
    except Exception as error:
        raise _undecodable(path, error) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _undecodable(path: Path, error: Exception) -> UserError:
    """Return a UserError for the various exceptions of decoders."""
    reason = str(error).strip().partition('\n')[0] or type(error).__name__
    return UserError(f'{path} cannot be decoded as {_FORMAT_NAMES} ({reason}): repair or remove it')

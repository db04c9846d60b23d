"""A folder of picture files as a data set: all PNG, JPEG, WebP and BMP files below it.

    --config.dataset=folder --config.data_dir=PATH

Where every picture lies in a subfolder of PATH, and none deeper, those subfolders are classes.
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

_ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
_FORMATS = ('PNG', 'JPEG', 'WEBP', 'BMP')  # Whatever a file's ending, no other decoder sees it.
_KINDS = 'PNG, JPEG, WebP or BMP'
_MAX_PIXELS = 2**26  # of one picture: more may be a bomb, a small file that fills the memory
_GRAY_MODES = ('1', 'L', 'LA')
_MODES = (*_GRAY_MODES, 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # 8 bits a channel


class ImageFolder:
    """The pictures of a folder, in the order of their names; reads them as records.

    Record i has 'image', uint8 [H, W, C] with the picture upright as its EXIF data say, and 'label'
    where there are classes. C is 1 if all pictures are gray, else 3 for all. What is transparent
    lies on white, as most viewers show it: the colors that files hide behind it are arbitrary.

    Attributes:
      name: 'folder/NAME-HASH', the hash over the names and sizes of all files.
      files: Paths of the pictures, sorted by their names below the folder.
      classes: Names of the classes, sorted; empty if there are none.
      channels: C.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        field: str = 'config.data_dir',
        skip_corrupt: bool = False,
    ):
        """Finds the pictures below `root` and looks at the header of each.

        Files with other endings and hidden ones are passed over; links to folders aren't followed.

        Args:
          root: The folder.
          field: Where users name it, for messages.
          skip_corrupt: Whether files that can't be decoded are let in, to fail when they are read.

        Raises:
          UserError: There is no such folder or no picture in it, or a file is damaged, larger than
            64 megapixels, or of more than 8 bits a channel.
        """
        # pathlib raises for users that are not known, and for names that are too long.
        root = Path(os.path.expanduser(root)).absolute()
        if not os.path.isdir(root):
            raise UserError(f'{field}={root} is no folder: name one of {_KINDS} files')
        names = _find(root)
        if not names:
            raise UserError(f'{field}={root} has no {_KINDS} files in it: name another folder')
        self.files = [root / name for name in names]
        self.name = f'folder/{root.name}-{_digest(names, self.files)}'
        folders = [Path(name).parts[:-1] for name in names]
        sorted_out = all(len(parts) == 1 for parts in folders)
        self.classes = sorted({parts[0] for parts in folders}) if sorted_out else []
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._labels = [numbers[parts[0]] for parts in folders] if sorted_out else []
        self._sizes, gray = {}, True
        bar = tqdm.tqdm(self.files, desc=f'Looking at {root}', delay=3, disable=None)
        for index, path in enumerate(bar):
            try:
                self._sizes[index], mode = _read_header(path)
                gray = gray and mode in _GRAY_MODES
            except UserError:
                if not skip_corrupt:
                    raise
        if not self._sizes:
            raise UserError(f'{field}={root} has only damaged pictures: name another folder')
        self.channels = 1 if gray else 3

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> list[dict]:
        records = []
        for index in indices:
            if index not in self._sizes:
                _read_header(self.files[index])  # raises what is wrong with it
            record = {'image': _decode(self.files[index], 'L' if self.channels == 1 else 'RGB')}
            if self.classes:
                record['label'] = self._labels[index]
            records.append(record)
        return records

    def side(self, remedy: str) -> int:
        """Pixels a side of the pictures, if all are squares of one size.

        Raises:
          UserError: They aren't; it names a picture that isn't and ends with `remedy`.
        """
        first, (width, height) = next(iter(self._sizes.items()))
        if width != height:
            path = self.files[first]
            raise UserError(f'{path} has {width}x{height} pixels, not a square: {remedy}')
        self.check_sizes(remedy)
        return width

    def check_sizes(self, remedy: str) -> None:
        """Refuses pictures of several sizes, as `side` does."""
        first, size = next(iter(self._sizes.items()))
        for index, (width, height) in self._sizes.items():
            if (width, height) != size:
                raise UserError(
                    f'{self.files[index]} has {width}x{height} pixels, {self.files[first]} '
                    f'{size[0]}x{size[1]}: {remedy}'
                )


def read_image(path: str | os.PathLike, mode: str) -> np.ndarray:
    """Reads one picture as `ImageFolder` does.

    Args:
      path: The file.
      mode: 'L' or 'RGB'.

    Returns:
      uint8 [H, W, C], C being 1 or 3.

    Raises:
      UserError: It is none that can be used.
    """
    path = Path(os.path.expanduser(path))
    _read_header(path)
    return _decode(path, mode)


def _find(root: Path) -> list[str]:
    """Names of the picture files relative to `root`, with '/', sorted."""
    names = []
    try:
        for folder, subfolders, files in os.walk(root, onerror=_raise):
            subfolders[:] = [name for name in subfolders if not name.startswith('.')]
            below = Path(folder).relative_to(root)
            names += [
                (below / name).as_posix()
                for name in files
                if name.lower().endswith(_ENDINGS) and not name.startswith('.')
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
        size = path.stat().st_size if path.exists() else 0  # A dangling link is refused later.
        content.update(os.fsencode(name) + b'\0' + str(size).encode() + b'\0')
    return content.hexdigest()[:12]


def _read_header(path: Path) -> tuple[tuple[int, int], str]:
    """((width, height), Pillow's mode) as stored, from a picture that can be used."""
    try:
        with warnings.catch_warnings():
            # Above Pillow's own limit; refused below.
            warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=_FORMATS) as picture:
                size, mode = picture.size, picture.mode
    except Exception as error:
        raise _undecodable(path, error) from error
    if size[0] * size[1] > _MAX_PIXELS:
        raise UserError(
            f'{path} has {size[0]}x{size[1]} pixels, more than {_MAX_PIXELS}: '
            'make it smaller or take it away'
        )
    if mode not in _MODES:
        raise UserError(
            f'{path} does not have 8 bits a channel (its mode is {mode}): '
            'convert it, or take it away'
        )
    return size, mode


def _decode(path: Path, mode: str) -> np.ndarray:
    """A picture as uint8 [H, W, C], C being 1 or 3 by `mode`, 'L' or 'RGB'."""
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
    """Damaged files make decoders raise errors of nearly any kind."""
    reason = str(error).strip().partition('\n')[0] or type(error).__name__
    return UserError(f'{path} cannot be decoded as {_KINDS} ({reason}): repair it or take it away')

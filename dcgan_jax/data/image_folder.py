"""Data set of the image files in a folder and its subfolders; docs/data.md describes it.

    --config.dataset=folder --config.data_dir=PATH

If every file is in a direct subfolder of PATH, the subfolders are the classes.
"""

import collections
import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm
from absl import logging

from dcgan_jax.data import image_files
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import escape

_LISTED = 20  # Largest number of classes, and of types of skipped files, listed in the log.


class ImageFolder:
    """Images of a folder as records, sorted by name.

    A record has 'image', uint8 [H, W, C], oriented according to its EXIF data, and 'label' if there
    are classes. C is 1 if all images are grayscale, else 3. Transparent images are composited on
    white. Names that differ only in their Unicode normalization are treated as equal.

    Attributes:
      name: 'folder/NAME-DIGEST', where NAME is the name of the folder.
      digest: Hash of the names and sizes of the images.
      names: POSIX paths of the images relative to the folder, sorted.
      files: Paths of the images, in the same order.
      classes: Names of the classes in natural order ('2' before '10'); empty if there are none.
      no_classes_reason: Reason why there are no classes; '' if there are classes.
      labels: Index of the class of each image; empty if there are no classes.
      channels: Number of channels, C.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        field: str = 'config.data_dir',
        skip_corrupt: bool = False,
        max_pixels: int = image_files.MAX_PIXELS,
    ):
        """Find the images, read the header of each, and log a summary.

        Symbolic links are followed. Hidden files and folders are ignored. Other types of files,
        pipes, sockets and devices are skipped and counted in the summary.

        Args:
          root: The folder.
          field: Name of the setting in error messages.
          skip_corrupt: Whether to accept images that `image_files.read_header` rejects; reading one
            raises `UserError`.
          max_pixels: Largest allowed number of pixels of an image.

        Raises:
          UserError: If there is no such folder or no image; if an image is damaged, too large, or
            has neither 8 bits per channel nor 16-bit gray values; or if the name of a class is not
            valid UTF-8 or has control characters.
        """
        # The pathlib equivalents raise for unknown users and for names that are too long.
        root = Path(os.path.expanduser(root)).absolute()
        if not os.path.isdir(root):
            raise UserError(f'{field}={root} is not a folder: use a folder of image files')
        found = _find(root, field)
        if not found.files:
            skipped = f' ({found.skipped_text()})' if found.skipped else ''
            raise UserError(f'{field}={root} has no image files{skipped}: use another folder')
        _warn_of_merged_classes(found.files)
        self.files = list(found.files.values())
        self.names = names = [_normalize(name) for name in found.files]
        self.digest = _digest(names, self.files)
        self.name = f'folder/{escape(root.name)}-{self.digest}'
        folders = [name.split('/')[:-1] for name in names]
        outside = [path for path, parts in zip(self.files, folders, strict=True) if len(parts) != 1]
        self.classes = [] if outside else sorted({parts[0] for parts in folders}, key=_natural_key)
        self.no_classes_reason = _no_classes_reason(root, outside) if outside else ''
        for name in self.classes:
            if escape(name) != name:
                raise UserError(
                    f'{field}={root}: the name of the class folder {escape(name)!r} has control '
                    'characters or is not valid UTF-8: rename it'
                )
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels = [numbers[parts[0]] for parts in folders] if self.classes else []
        self._headers = {}
        bar = tqdm.tqdm(self.files, desc=f'Scanning {root}', delay=3, disable=None)
        for index, path in enumerate(bar):
            try:
                self._headers[index] = image_files.read_header(path, max_pixels)
            except UserError:
                if not skip_corrupt:
                    raise
        if not self._headers:
            raise UserError(f'{field}={root} has only damaged images: use another folder')
        self.channels = 1 if all(header.is_gray for header in self._headers.values()) else 3
        self._max_pixels = max_pixels
        logging.info('%s=%s: %s', field, escape(str(root)), self._summary(found))

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> list[dict]:
        mode = 'L' if self.channels == 1 else 'RGB'
        records = []
        for index in indices:
            if index in self._headers:
                image = image_files.decode(self.files[index], mode)
            else:  # Raises the error of the corrupt file.
                image = image_files.read_image(self.files[index], mode, self._max_pixels)
            record = {'image': image}
            if self.classes:
                record['label'] = self.labels[index]
            records.append(record)
        return records

    def side(self, remedy: str) -> int:
        """Return the side of the images, which must be squares of the same size.

        Raises:
          UserError: If they are not squares of the same size. The message ends with `remedy`.
        """
        first, (width, height) = next(self._sizes())
        if width != height:
            raise UserError(f'{first} has {width}x{height} pixels, not a square: {remedy}')
        self.check_sizes(remedy)
        return width

    def check_sizes(self, remedy: str) -> None:
        """Raise a `UserError` that ends with `remedy` unless all images have the same size."""
        first, size = next(self._sizes())
        for path, (width, height) in self._sizes():
            if (width, height) != size:
                raise UserError(
                    f'{path} has {width}x{height} pixels, {first} {size[0]}x{size[1]}: {remedy}'
                )

    def split_order(self) -> np.ndarray:
        """Return the permutation, int `[N]`, whose slices are sub-splits such as 'train[:66%]'.

        It depends only on the names. Each slice has nearly the same fraction of every class.
        """
        labels = self.labels or [0] * len(self)
        hashes = [hashlib.sha256(os.fsencode(name)).digest() for name in self.names]
        shuffled = sorted(range(len(self)), key=hashes.__getitem__)
        totals, seen = collections.Counter(labels), collections.Counter()
        position = {}  # In [0, 1), evenly spaced for each class.
        for index in shuffled:
            position[index] = (seen[labels[index]] + 0.5) / totals[labels[index]]
            seen[labels[index]] += 1
        return np.asarray(sorted(shuffled, key=position.__getitem__))

    def _sizes(self):
        return ((self.files[index], header.size) for index, header in self._headers.items())

    def _summary(self, found: '_Found') -> str:
        """Return a line that describes the images and the skipped files."""
        sizes = sorted({size for _, size in self._sizes()}, key=lambda size: size[0] * size[1])
        counts = collections.Counter(self.labels)
        classes = [f'{name} {counts[number]}' for number, name in enumerate(self.classes)]
        parts = [
            _plural(len(self), 'image'),
            f'{_plural(len(classes), "class", "classes")} ({_listed(classes)})'
            if classes
            else 'no classes',
            ' to '.join(
                f'{width}x{height}' for width, height in dict.fromkeys(sizes[:1] + sizes[-1:])
            )
            + ' pixels',
            'gray' if self.channels == 1 else 'RGB',
        ]
        if count := sum(header.has_16_bits for header in self._headers.values()):
            parts.append(f'{count} with 16 bits, scaled to 8')
        text = ', '.join(parts)
        return f'{text}; {found.skipped_text()}' if found.skipped else text


class _Found(NamedTuple):
    """Image files of a folder, and the number of skipped files.

    Attributes:
      files: Paths of the images by their POSIX paths relative to the folder, sorted.
      skipped: Number of skipped files of each type.
    """

    files: dict[str, Path]
    skipped: collections.Counter

    def skipped_text(self) -> str:
        kinds = [f'{count} {escape(kind)}' for kind, count in self.skipped.most_common()]
        return f'skipped: {_listed(kinds)}'


def _find(root: Path, field: str) -> _Found:
    """Find the image files below `root`; a folder with several paths is read once."""
    suffixes = frozenset(image_files.supported_formats())
    files, skipped = {}, collections.Counter()
    visited = {}
    links = collections.deque()

    def walk(folder: Path) -> None:
        status = os.stat(folder)
        first = visited.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            kind = 'link to a parent folder' if first in folder.parents else 'link to a read folder'
            skipped[kind] += 1
            logging.warning('%s is skipped: it is the same folder as %s', folder, first)
            return
        for entry in sorted(os.listdir(folder)):
            path = folder / entry
            if entry.startswith('.'):
                continue
            suffix = os.path.splitext(entry)[1].lower()
            try:
                mode = os.stat(path).st_mode
            except OSError:
                mode = None
            if mode is not None and stat.S_ISDIR(mode):
                if path.is_symlink():
                    links.append(path)
                else:
                    walk(path)
            elif mode is not None and not stat.S_ISREG(mode):
                skipped['pipe, socket or device'] += 1
            elif suffix in suffixes:  # A dangling link is reported when it is opened.
                files[path.relative_to(root).as_posix()] = path
            elif mode is None:
                skipped['dangling link'] += 1
            else:
                skipped[suffix or 'without suffix'] += 1

    try:
        walk(root)
        while links:  # Links last, so that a folder is read at its own path.
            walk(links.popleft())
    except OSError as error:
        raise UserError(
            f'{error.filename or root} cannot be read ({error.strerror or error}): make it '
            f'readable, or set {field} to another folder'
        ) from error
    return _Found(dict(sorted(files.items(), key=lambda item: _normalize(item[0]))), skipped)


def _warn_of_merged_classes(files: dict[str, Path]) -> None:
    """Log a warning if folders have equal names after Unicode normalization."""
    folders = collections.Counter(
        _normalize(folder) for folder in {os.path.dirname(f) for f in files}
    )
    for folder, count in folders.items():
        if count > 1:
            logging.warning(
                '%d folders are named %s in different Unicode normalizations; they are read as one',
                count,
                escape(folder),
            )


def _no_classes_reason(root: Path, outside: list[Path]) -> str:
    others = f' and {_plural(len(outside) - 1, "other image")} are' if len(outside) > 1 else ' is'
    return f'{outside[0]}{others} not in a class folder, a direct subfolder of {root}'


def _normalize(name: str) -> str:
    return unicodedata.normalize('NFC', name)


def _natural_key(name: str) -> tuple:
    """Return a sort key for which '2' precedes '10'."""
    parts = re.split(r'(\d+)', name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _plural(count: int, singular: str, plural: str = '') -> str:
    return f'{count:,} {singular if count == 1 else plural or singular + "s"}'


def _listed(texts: Sequence[str]) -> str:
    more = f', and {len(texts) - _LISTED} more' if len(texts) > _LISTED else ''
    return ', '.join(texts[:_LISTED]) + more


def _digest(names: list[str], files: list[Path]) -> str:
    content = hashlib.sha256()
    for name, path in zip(names, files, strict=True):
        size = path.stat().st_size if path.exists() else 0  # A dangling link is reported later.
        content.update(os.fsencode(name) + b'\0' + str(size).encode() + b'\0')
    return content.hexdigest()[:12]

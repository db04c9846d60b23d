"""A split of an image data set with random access."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm
from etils import epath

from dcgan_jax.data.images import center_crop
from dcgan_jax.data.split_ranges import SplitRange
from dcgan_jax.data.tfds_data import Records
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import digest

RESIZE_REMEDY = 'set config.data.image_size, e.g. to 64, to crop images to squares and resize them'
_LABEL_BATCH_SIZE = 64


class Examples(NamedTuple):
    """Images and labels as NumPy or JAX arrays.

    Attributes:
      images: uint8 [..., H, W, C].
      labels: int32 [...] in [0, number of classes), or None if they were not requested.
    """

    images: Any
    labels: Any = None


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """A split of a prepared data set with random access.

    Attributes:
      name: Name and version, e.g. 'cifar10/3.0.2', or 'folder/NAME-DIGEST'.
      split: Name of the split, e.g. 'train' or 'test[:100]'.
      image_shape: (H, W, C) of the images as read, with H == W.
      records: Records with 'image', the stored image, uint8 [H, W, C], and 'label' if there are
        classes.
      ranges: Ranges of examples that the split selects; `()` if unknown. `records` may have fewer
        examples, because `select_classes` does not change the ranges.
      files: Paths of the files of the data set.
      identity: Properties that identify the data set independently of its path and the split. For
        TFDS, its name, its version and the sizes of its splits. For a folder, the number of images
        and hashes of the names and sizes of the files and, up to 1 GiB, of the contents of each
        class.
      class_names: Names of the classes by label; empty if images have no labels.
      image_size: Size to which stored images are cropped and resized; 0 if they are used as stored
        and are squares of the same size.
      read_settings: Names and values of further settings on which the images depend, as passed to
        `sources.open_source`; they are part of cache keys and of the protocol of evaluations.
      no_labels_reason: Reason why the images have no labels; only used if they have none.
      empty_classes: Classes known to have no images in this split.
    """

    name: str
    split: str
    image_shape: tuple[int, int, int]
    records: Records = dataclasses.field(repr=False)
    ranges: tuple[SplitRange, ...] = ()
    files: Sequence[epath.PathLike] = dataclasses.field(default=(), repr=False)
    identity: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    image_size: int = 0
    read_settings: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    no_labels_reason: str = 'no feature `label` of classes'
    empty_classes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 if images have no labels."""
        return len(self.class_names)

    @property
    def nbytes(self) -> int:
        """Total size of the images as uint8."""
        return len(self) * math.prod(self.image_shape)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the data set's files, see `runtime.files.digest`; computed once."""
        return self.compute_digest()

    def compute_digest(self) -> str:
        """Compute the SHA-256 of the data set's files in their current state."""
        return digest(self.files)

    def require_labels(self, remedy: str = 'set config.conditional=False') -> None:
        """Raise a `UserError` that contains `remedy` if the images have no labels."""
        if not self.num_classes:
            raise UserError(
                f'{self.name} has no labels ({self.no_labels_reason}): {remedy}, or use a data set '
                'with labels'
            )

    def read(self, indices: np.ndarray, labels: bool = False) -> Examples:
        """Read the images at `indices` [N], in that order; indices may repeat.

        Args:
          indices: Indices in [0, len(self)).
          labels: Whether to read the labels as well.

        Returns:
          Images uint8 [N, H, W, C]; labels int32 [N], or None.

        Raises:
          UserError: If images have different shapes, or requested labels are missing or invalid.
        """
        if labels:
            self.require_labels()
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        classes = np.empty(len(indices), np.int32) if labels else None
        # Stored images that need to be resized may be large, so they are read one by one.
        bulk = 1 if self.image_size else max(1, len(indices))
        for start in range(0, len(indices), bulk):
            batch = np.asarray(indices[start : start + bulk]).tolist()
            records = self.records.__getitems__(batch)
            for row, (index, record) in enumerate(zip(batch, records, strict=True), start):
                images[row] = self._resize(index, record['image'])
                if labels:
                    classes[row] = self._check_label(index, record['label'])
        return Examples(images, classes)

    def labels(self) -> np.ndarray:
        """Return the labels of all images, int32 `[N]`; raises `UserError` if there are none."""
        self.require_labels()
        labels = []
        bar = tqdm.tqdm(total=len(self), desc=f'Labels of {self.name}', delay=3, disable=None)
        with bar:
            for start in range(0, len(self), _LABEL_BATCH_SIZE):
                batch = list(range(start, min(start + _LABEL_BATCH_SIZE, len(self))))
                labels += [record['label'] for record in self.records.__getitems__(batch)]
                bar.update(len(batch))
        return np.asarray(labels, np.int32)

    def _resize(self, index: int, image: np.ndarray) -> np.ndarray:
        stored_shape = image.shape
        if self.image_size:
            image = center_crop(image, self.image_size)
        if image.shape != self.image_shape:
            channels = self.image_shape[-1]
            remedy = f'use images of {channels} channels' if self.image_size else RESIZE_REMEDY
            raise UserError(
                f'{self.name} {self.split}: image {index} has shape {stored_shape}, but the first '
                f'image is read as {self.image_shape}: {remedy}'
            )
        return image

    def _check_label(self, index: int, label: int) -> int:
        if not 0 <= label < self.num_classes:  # TFDS uses -1 for images without a label.
            raise UserError(
                f'{self.name} {self.split}: image {index} has the label {label}, not one of 0 to '
                f'{self.num_classes - 1}: set config.conditional=False, or use a split whose '
                'images all have labels'
            )
        return label

"""Image data sets with random access: TFDS data sets and folders."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from ml_collections import ConfigDict

from dcgan_jax.data.corrupt_records import CheckedRecords
from dcgan_jax.data.image_folder import ImageFolder
from dcgan_jax.data.images import center_crop
from dcgan_jax.data.tfds_data import (
    Records,
    Selection,
    class_names,
    find_or_prepare,
    first_line,
    open_records,
)
from dcgan_jax.runtime.errors import UserError

_LABELS_AT_ONCE = 64
_RESIZE = 'set config.data.image_size, e.g. to 64, to crop images to squares and resize them'


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
      name: Name and version, e.g. 'cifar10/3.0.2', or 'folder/NAME-HASH'.
      split: Name of the split, e.g. 'train' or 'test[:100]'.
      image_shape: (H, W, C) of the images as read, with H == W.
      records: Records with 'image', uint8 [H, W, C] as stored, and 'label' if there are classes.
      class_names: Names of the classes by label; empty if images have no labels.
      image_size: Size to which stored images are cropped and resized; 0 if they are squares of one
        size and used as stored.
    """

    name: str
    split: str
    image_shape: tuple[int, int, int]
    records: Records = dataclasses.field(repr=False)
    class_names: tuple[str, ...] = ()
    image_size: int = 0

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

    def require_labels(self) -> None:
        """Raise `UserError` if the images have no labels."""
        if not self.num_classes:
            raise UserError(
                f'{self.name} has no labels (no feature `label` of classes): '
                'set config.conditional=False, or use a data set with labels'
            )

    def read(self, indices: np.ndarray, labels: bool = False) -> Examples:
        """Read the images at `indices` [N], in that order; indices may repeat.

        Args:
          indices: Indices in [0, len(self)).
          labels: Whether to read the labels as well.

        Returns:
          Images uint8 [N, H, W, C]; labels int32 [N], or None.

        Raises:
          UserError: If the images have different shapes, or labels are requested but missing.
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
            for start in range(0, len(self), _LABELS_AT_ONCE):
                batch = list(range(start, min(start + _LABELS_AT_ONCE, len(self))))
                labels += [record['label'] for record in self.records.__getitems__(batch)]
                bar.update(len(batch))
        return np.asarray(labels, np.int32)

    def _resize(self, index: int, image: np.ndarray) -> np.ndarray:
        stored_shape = image.shape
        if self.image_size:
            image = center_crop(image, self.image_size)
        if image.shape != self.image_shape:
            channels = self.image_shape[-1]
            remedy = f'use images of {channels} channels' if self.image_size else _RESIZE
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


def open_source(
    name: str,
    split: str = 'train',
    data_dir: str | None = None,
    image_size: int = 0,
    on_corrupt: str = 'stop',
) -> ImageSource:
    """Open a split, after preparing the data set if necessary.

    Data sets that are not yet in the data directory are prepared: `cifar10` and `shapes` by this
    package's builders, others by TFDS, which needs TensorFlow for it. `folder` is the image files
    in `data_dir` (see `image_folder`), with the single split 'train'.

    Args:
      name: TFDS name, optionally with a version, e.g. 'cifar10' or 'cifar10:3.0.2'; or 'folder'.
      split: TFDS split, e.g. 'train', 'test' or 'train[:1000]'.
      data_dir: Folder of the data sets; defaults to $TFDS_DATA_DIR or ~/tensorflow_datasets, which
        is created if needed. For 'folder', the folder of the images.
      image_size: Size to which images are cropped and resized; 0 to use square images as stored.
      on_corrupt: 'stop' to raise an error for corrupt records, 'skip' to use the next record.

    Raises:
      UserError: If the data set cannot be found, prepared or read, or its images are not suitable.
    """
    if name == 'folder':
        return _open_folder(data_dir, split, image_size, on_corrupt)
    try:
        builder = find_or_prepare(name, data_dir)
        return _open_split(builder, split, image_size, on_corrupt)
    except ImportError as error:
        raise UserError(
            f'{name} needs a package that is missing ({first_line(error)}): '
            'pip install -r requirements.txt'
        ) from error


def open_split(config: ConfigDict, split: str) -> ImageSource:
    """Open a split of a run's data set, with its classes and image size; see `open_source`."""
    fields = config.data
    source = open_source(
        config.dataset, split, config.data_dir, fields.image_size, fields.on_corrupt
    )
    return select_classes(source, fields.classes) if fields.classes else source


def open_test_split(config: ConfigDict) -> ImageSource | None:
    """Open the test split; returns None if there is none or it may have been trained on."""
    if config.dataset == 'folder' or 'test' in config.data.split:
        return None
    try:
        return open_split(config, 'test')
    except UserError:
        return None


def select_classes(source: ImageSource, classes: Sequence[int]) -> ImageSource:
    """Return the images of some classes, in their order; this reads all labels.

    Raises:
        UserError: If there are no labels, or no images of these classes.
    """
    labels = source.labels()
    indices = np.flatnonzero(np.isin(labels, classes))
    if not len(indices) or max(classes) >= source.num_classes:
        raise UserError(
            f'config.data.classes={tuple(classes)}: {source.name} {source.split} has classes 0 to '
            f'{source.num_classes - 1}: use classes that it has images of'
        )
    return dataclasses.replace(
        source,
        split=f'{source.split}, classes {", ".join(map(str, classes))}',
        records=Selection(source.records, indices),
    )


def _open_folder(data_dir: str | None, split: str, image_size: int, on_corrupt: str) -> ImageSource:
    if not data_dir:
        raise UserError('config.dataset=folder needs config.data_dir, the folder of the images')
    folder = ImageFolder(data_dir, skip_corrupt=on_corrupt == 'skip')
    info = tfds.core.SplitInfo(name='train', shard_lengths=[len(folder)], num_bytes=0)
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute({'train': info})
    except ValueError as error:
        raise UserError(f'{folder.name} {split} cannot be read: {first_line(error)}') from error
    everything = np.arange(len(folder))
    indices = np.concatenate([everything[part.from_ : part.to] for part in parts])
    if not len(indices):
        raise UserError(f'{folder.name} {split} has no images: use another split')
    side = image_size or folder.side(_RESIZE)
    return ImageSource(
        name=folder.name,
        split=split,
        image_shape=(side, side, folder.channels),
        records=CheckedRecords(Selection(folder, indices), f'{folder.name} {split}', on_corrupt),
        class_names=tuple(folder.classes),
        image_size=image_size,
    )


def _open_split(
    builder: tfds.core.DatasetBuilder, split: str, image_size: int, on_corrupt: str
) -> ImageSource:
    name = builder.info.full_name
    features = dict(builder.info.features)
    feature = features.get('image')
    if not isinstance(feature, tfds.features.Image) or feature.np_dtype != np.uint8:
        raise UserError(
            f'{name} has no feature `image` of uint8 images (its features: {", ".join(features)}): '
            'use an image data set'
        )
    try:
        if builder.info.splits[split].num_examples == 0:
            raise UserError(f'{name} {split} has no images: use another split')
        records = CheckedRecords(open_records(builder, split), f'{name} {split}', on_corrupt)
        height, width, channels = records.__getitems__([0])[0]['image'].shape
    except UserError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(f'{name} {split} cannot be read: {first_line(error)}') from error
    if image_size:
        height = width = image_size
    if height != width:
        raise UserError(
            f'{name} {split} has images of shape {(height, width, channels)}: '
            f'images must be square: {_RESIZE}'
        )
    shape = height, width, channels
    return ImageSource(name, split, shape, records, class_names(builder), image_size)

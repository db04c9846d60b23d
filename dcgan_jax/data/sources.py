"""Image data sets with random access: TFDS data sets and folders."""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from etils import epath
from ml_collections import ConfigDict
from tensorflow_datasets.core import read_only_builder

from dcgan_jax.data.corrupt_records import CheckedRecords
from dcgan_jax.data.image_folder import ImageFolder
from dcgan_jax.data.images import center_crop
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import resolve_path

# Imported only to prepare a data set: {name: (module, class, version)}.
_BUILDERS = {
    'cifar10': ('dcgan_jax.data.cifar10_builder', 'Cifar10', '3.0.2'),
    'shapes': ('dcgan_jax.data.shapes_builder', 'Shapes', '1.0.0'),
}
_LABELS_AT_ONCE = 64
_DEFAULT_DATA_DIR = '~/tensorflow_datasets'
_RESIZE = 'set config.data.image_size, e.g. to 64, to crop images to squares and resize them'


class Examples(NamedTuple):
    """Images and labels as NumPy or JAX arrays.

    Attributes:
      images: uint8 [..., H, W, C].
      labels: int32 [...] in [0, number of classes), or None if they were not requested.
    """

    images: Any
    labels: Any = None


class Records(Protocol):
    """Interface of TFDS's data sources; bulk reads are up to three times as fast."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> Sequence[dict]: ...


@dataclasses.dataclass(frozen=True)
class _Selection:
    """The records at `indices` [N], in that order."""

    records: Records
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, indices: list[int]) -> Sequence[dict]:
        return self.records.__getitems__(self.indices[indices].tolist())


class _InMemory(list):
    def __getitems__(self, indices: list[int]) -> Sequence[dict]:
        return [self[index] for index in indices]


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
    root = _data_root(data_dir)
    try:
        builder = _find_prepared(name, root)
        if builder is None:
            _prepare(name, root)
            builder = _find_prepared(name, root)
        if builder is None:
            raise UserError(f'{root / _base_name(name)} is incomplete: delete it and try again')
        return _open_split(builder, split, image_size, on_corrupt)
    except ImportError as error:
        raise UserError(
            f'{name} needs a package that is missing ({_first_line(error)}): '
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
        records=_Selection(source.records, indices),
    )


def _open_folder(data_dir: str | None, split: str, image_size: int, on_corrupt: str) -> ImageSource:
    if not data_dir:
        raise UserError('config.dataset=folder needs config.data_dir, the folder of the images')
    folder = ImageFolder(data_dir, skip_corrupt=on_corrupt == 'skip')
    info = tfds.core.SplitInfo(name='train', shard_lengths=[len(folder)], num_bytes=0)
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute({'train': info})
    except ValueError as error:
        raise UserError(f'{folder.name} {split} cannot be read: {_first_line(error)}') from error
    everything = np.arange(len(folder))
    indices = np.concatenate([everything[part.from_ : part.to] for part in parts])
    if not len(indices):
        raise UserError(f'{folder.name} {split} has no images: use another split')
    side = image_size or folder.side(_RESIZE)
    return ImageSource(
        name=folder.name,
        split=split,
        image_shape=(side, side, folder.channels),
        records=CheckedRecords(_Selection(folder, indices), f'{folder.name} {split}', on_corrupt),
        class_names=tuple(folder.classes),
        image_size=image_size,
    )


def _data_root(data_dir: str | None) -> epath.Path:
    path = data_dir or os.environ.get('TFDS_DATA_DIR')
    root = resolve_path(path or _DEFAULT_DATA_DIR, 'data directory')
    if path and not root.is_dir():
        raise UserError(f'data directory {root} does not exist: correct the path or create it')
    return root


def _base_name(name: str) -> str:
    return re.split('[/:]', name)[0]


def _find_prepared(name: str, root: epath.Path) -> tfds.core.DatasetBuilder | None:
    """Return a builder that reads a data set prepared under `root`, or None."""
    if not re.fullmatch(r'\w+([/:][\w./:*-]+)?', name):
        raise _unknown(name)
    try:
        return read_only_builder.builder_from_files(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(
            f'{name} in {root} cannot be opened ({_first_line(error)}): '
            'delete it, or set data_dir to another folder'
        ) from error


def _prepare(name: str, root: epath.Path) -> None:
    """Prepare a data set under `root` in a format with random access."""
    base, _, version = name.partition(':')
    module, cls, our_version = _BUILDERS.get(base, (None, None, None))
    if module and version in ('', our_version):
        make_builder = getattr(importlib.import_module(module), cls)
    elif _base_name(name) not in tfds.list_builders(with_community_datasets=False):
        raise _unknown(name)
    elif importlib.util.find_spec('tensorflow') is None:
        raise UserError(
            f'{name} is not prepared in {root}, and TFDS prepares it with TensorFlow only: '
            f"where it is installed, run tfds.builder('{name}', file_format='array_record', "
            'data_dir=DIR).download_and_prepare(), then set data_dir to DIR'
        )
    else:
        make_builder = functools.partial(tfds.builder, name)
    print(f'Preparing {name} in {root} (once) ...', file=sys.stderr, flush=True)
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints to stdout.
            make_builder(data_dir=root, file_format='array_record').download_and_prepare()
    except OSError as error:
        # Another process may have prepared the data set in the meantime.
        if _find_prepared(name, root) is None:
            raise UserError(
                f'cannot prepare {name} in {root} ({_first_line(error)}): '
                'set data_dir to a writable folder, or to one that has the data set'
            ) from error


def _unknown(name: str) -> UserError:
    known = {*_BUILDERS, *tfds.list_builders(with_community_datasets=False)}
    close = difflib.get_close_matches(_base_name(name), sorted(known))
    hint = f'did you mean {" or ".join(close)}? ' if close else ''
    return UserError(
        f'unknown data set {name!r}: {hint}The built-in data sets are {" and ".join(_BUILDERS)}; '
        'others must be image data sets of TFDS, or be prepared in data_dir; '
        "'folder' is the image files in data_dir"
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
        records = CheckedRecords(_open_records(builder, split), f'{name} {split}', on_corrupt)
        height, width, channels = records.__getitems__([0])[0]['image'].shape
    except UserError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(f'{name} {split} cannot be read: {_first_line(error)}') from error
    if image_size:
        height = width = image_size
    if height != width:
        raise UserError(
            f'{name} {split} has images of shape {(height, width, channels)}: '
            f'images must be square: {_RESIZE}'
        )
    shape = height, width, channels
    return ImageSource(name, split, shape, records, _class_names(builder), image_size)


def _class_names(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    label = dict(builder.info.features).get('label')
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        return ()
    return tuple(label.names)


def _open_records(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    try:
        return _select(builder.as_data_source(split), builder, split)
    except NotImplementedError:  # The format, e.g. TFRecord, has no random access.
        if importlib.util.find_spec('tensorflow') is None:
            raise UserError(
                f'{builder.info.full_name} in {builder.data_dir} has the format '
                f'{builder.info.file_format.value}, which only TensorFlow reads: install '
                'tensorflow, or set data_dir to another folder, in which it is (or, for '
                f'{" and ".join(_BUILDERS)}, will be) prepared as array_record'
            ) from None
    return _read_with_tensorflow(builder, split)


def _select(records: Records, builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """Apply a sub-split such as 'train[:100]', which TFDS's Parquet reader ignores (4.9.10)."""
    shards = builder.info.splits[split].file_instructions
    if len(records) == sum(shard.take for shard in shards):
        return records
    sizes = [shard.examples_in_shard for shard in shards]
    if len(records) != sum(sizes):
        raise UserError(
            f'{builder.info.full_name} {split}: {builder.data_dir} has {len(records)} records, '
            f'not {sum(sizes)}: delete it and prepare the data set again'
        )
    starts = np.cumsum(sizes) - sizes
    parts = [
        start + np.arange(shard.skip, shard.skip + shard.take)
        for start, shard in zip(starts, shards, strict=True)
    ]
    return _Selection(records, np.concatenate(parts))


def _read_with_tensorflow(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """Read a split's images and labels into memory; TensorFlow does not use the accelerator."""
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    features = {'image': True} | ({'label': True} if _class_names(builder) else {})
    dataset = builder.as_dataset(
        split, decoders=tfds.decode.PartialDecoding(features), shuffle_files=False
    )
    return _InMemory(tfds.as_numpy(dataset))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition('\n')[0]

"""From the name of a data set, or a folder, to images that can be read in any order."""

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

# Imported only when a data set has to be prepared: {name: (module, class, version)}.
_BUILDERS = {
    'cifar10': ('dcgan_jax.data.cifar10_builder', 'Cifar10', '3.0.2'),
    'shapes': ('dcgan_jax.data.shapes_builder', 'Shapes', '1.0.0'),
}
_LABELS_AT_ONCE = 64
_DEFAULT_DATA_DIR = '~/tensorflow_datasets'
_RESIZE = 'set config.data.image_size, to 64 say, to crop them to squares and resize those'


class Examples(NamedTuple):
    """Images with their labels, as arrays of NumPy or JAX.

    Attributes:
      images: uint8 [..., H, W, C].
      labels: int32 [...] in [0, number of classes), or None where nobody asked for them.
    """

    images: Any
    labels: Any = None


class Records(Protocol):
    """What TFDS's data sources offer; in bulk they read up to three times as fast as one by one."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> Sequence[dict]: ...


@dataclasses.dataclass(frozen=True)
class _Selection:
    """The records of `indices` [N], in that order."""

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
    """One split of a prepared data set, readable in any order.

    Attributes:
      name: Name and version, 'cifar10/3.0.2', or 'folder/NAME-HASH'.
      split: Split as given, 'train' or 'test[:100]'.
      image_shape: (H, W, C) of what is read, H == W, C as stored (1 for gray images).
      records: Record i is a dict with 'image': uint8 [H, W, C] as stored, and with 'label' where
        there are classes.
      class_names: Names of the classes, by label; empty where images have no labels.
      image_size: Stored images are cropped to their central square and resized to this many pixels
        a side; 0: they are squares of one size and stay as they are.
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
        """Classes that the labels tell apart; 0 where images have no labels."""
        return len(self.class_names)

    @property
    def nbytes(self) -> int:
        """Size of all the images as uint8."""
        return len(self) * math.prod(self.image_shape)

    def require_labels(self) -> None:
        """Raises a UserError if the images have no labels."""
        if not self.num_classes:
            raise UserError(
                f'{self.name} has no labels (no feature `label` of classes): '
                'set config.conditional=False, or use a data set with labels'
            )

    def read(self, indices: np.ndarray, labels: bool = False) -> Examples:
        """Reads the images of `indices` [N], in that order, repeats allowed.

        Args:
          indices: Which images, in [0, len(self)).
          labels: Whether to read their labels too.

        Returns:
          Images uint8 [N, H, W, C]; labels int32 [N], or None if not asked for.

        Raises:
          UserError: An image has another shape than the first one of the split, or labels are asked
            for and there are none.
        """
        if labels:
            self.require_labels()
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        classes = np.empty(len(indices), np.int32) if labels else None
        # One by one where stored images may be large: a thousand photographs fill the memory.
        bulk = 1 if self.image_size else max(1, len(indices))
        for start in range(0, len(indices), bulk):
            part = np.asarray(indices[start : start + bulk]).tolist()
            found = self.records.__getitems__(part)
            for row, (index, record) in enumerate(zip(part, found, strict=True), start):
                images[row] = self._as_read(index, record['image'])
                if labels:
                    classes[row] = self._class(index, record['label'])
        return Examples(images, classes)

    def labels(self) -> np.ndarray:
        """The labels of all images, int32 `[N]`; raises a UserError if there are none."""
        self.require_labels()
        found = []
        bar = tqdm.tqdm(total=len(self), desc=f'Labels of {self.name}', delay=3, disable=None)
        with bar:
            for start in range(0, len(self), _LABELS_AT_ONCE):
                part = list(range(start, min(start + _LABELS_AT_ONCE, len(self))))
                found += [record['label'] for record in self.records.__getitems__(part)]
                bar.update(len(part))
        return np.asarray(found, np.int32)

    def _as_read(self, index: int, image: np.ndarray) -> np.ndarray:
        stored = image.shape
        if self.image_size:
            image = center_crop(image, self.image_size)
        if image.shape != self.image_shape:
            same = f'use images of {self.image_shape[-1]} channels' if self.image_size else _RESIZE
            raise UserError(
                f'{self.name} {self.split}: image {index} has shape {stored}, which does not go '
                f'with {self.image_shape}, as the first one is read: {same}'
            )
        return image

    def _class(self, index: int, label: int) -> int:
        if not 0 <= label < self.num_classes:  # TFDS marks images without a label by -1.
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
    """Opens a split, preparing the data set first where that is possible.

    Whatever is prepared in the data directory is used. Else `cifar10` and `shapes` are prepared by
    this package's builders, and other data sets by TFDS, which needs TensorFlow for that. `folder`
    is the picture files below `data_dir` (see `datasets.folder`), all of them its split 'train'.

    Args:
      name: TFDS name, 'cifar10', with a version if need be, 'cifar10:3.0.2'; or 'folder'.
      split: TFDS split, 'train', 'test' or a part such as 'train[:1000]'.
      data_dir: Folder that holds the data sets; by default $TFDS_DATA_DIR, else
        ~/tensorflow_datasets, which is created if need be. Or the folder that is the data set.
      image_size: Images are cropped to their central square and resized to this many pixels a
        side; 0: they stay as they are, and must be square.
      on_corrupt: 'stop' refuses records that can't be read; 'skip' takes the next one for each.

    Raises:
      UserError: The data set can't be found, prepared or read, or its images aren't uint8, or
        neither square nor to be cropped.
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
            raise UserError(f'{root / _base_name(name)} is incomplete: delete it, then start again')
        return _open_split(builder, split, image_size, on_corrupt)
    except ImportError as error:
        raise UserError(
            f'{name} needs a package that is missing ({_first_line(error)}): '
            'pip install -r requirements.txt'
        ) from error


def open_split(config: ConfigDict, split: str) -> ImageSource:
    """Opens a split of a run's data set, as its images are read there; see `open_source`."""
    fields = config.data
    source = open_source(
        config.dataset, split, config.data_dir, fields.image_size, fields.on_corrupt
    )
    return select_classes(source, fields.classes) if fields.classes else source


def open_test_split(config: ConfigDict) -> ImageSource | None:
    """The test split of a run's data set; None if there is none, or the run may have learnt it."""
    if config.dataset == 'folder' or 'test' in config.data.split:
        return None
    try:
        return open_split(config, 'test')
    except UserError:
        return None


def select_classes(source: ImageSource, classes: Sequence[int]) -> ImageSource:
    """The images of some classes alone, in their order; all labels are read for that.

    Raises:
        UserError: there are no labels, or no images of these classes.
    """
    labels = source.labels()
    indices = np.flatnonzero(np.isin(labels, classes))
    if not len(indices) or max(classes) >= source.num_classes:
        raise UserError(
            f'config.data.classes={tuple(classes)}: {source.name} {source.split} has classes 0 to '
            f'{source.num_classes - 1}: name some that it has images of'
        )
    return dataclasses.replace(
        source,
        split=f'{source.split}, classes {", ".join(map(str, classes))}',
        records=_Selection(source.records, indices),
    )


def _open_folder(data_dir: str | None, split: str, image_size: int, on_corrupt: str) -> ImageSource:
    if not data_dir:
        raise UserError('config.dataset=folder needs config.data_dir, the folder of the images')
    pictures = ImageFolder(data_dir, skip_corrupt=on_corrupt == 'skip')
    info = tfds.core.SplitInfo(name='train', shard_lengths=[len(pictures)], num_bytes=0)
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute({'train': info})
    except ValueError as error:
        raise UserError(f'{pictures.name} {split} cannot be read: {_first_line(error)}') from error
    everything = np.arange(len(pictures))
    indices = np.concatenate([everything[part.from_ : part.to] for part in parts])
    if not len(indices):
        raise UserError(f'{pictures.name} {split} has no images: use another split')
    side = image_size or pictures.side(_RESIZE)
    return ImageSource(
        name=pictures.name,
        split=split,
        image_shape=(side, side, pictures.channels),
        records=CheckedRecords(
            _Selection(pictures, indices), f'{pictures.name} {split}', on_corrupt
        ),
        class_names=tuple(pictures.classes),
        image_size=image_size,
    )


def _data_root(data_dir: str | None) -> epath.Path:
    given = data_dir or os.environ.get('TFDS_DATA_DIR')
    root = resolve_path(given or _DEFAULT_DATA_DIR, 'data directory')
    if given and not root.is_dir():
        raise UserError(f'data directory {root} does not exist: correct it or create it (mkdir)')
    return root


def _base_name(name: str) -> str:
    return re.split('[/:]', name)[0]


def _find_prepared(name: str, root: epath.Path) -> tfds.core.DatasetBuilder | None:
    """Returns a builder that reads what is prepared under `root`, whoever prepared it, or None."""
    if not re.fullmatch(r'\w+([/:][\w./:*-]+)?', name):
        raise _unknown(name)
    try:
        return read_only_builder.builder_from_files(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(
            f'{name} in {root} cannot be opened ({_first_line(error)}): '
            'delete what is there, or set data_dir to another folder'
        ) from error


def _prepare(name: str, root: epath.Path) -> None:
    """Prepares `name` under `root` in a format that can be read in any order."""
    base, _, version = name.partition(':')
    module, cls, our_version = _BUILDERS.get(base, (None, None, None))
    if module and version in ('', our_version):
        make_builder = getattr(importlib.import_module(module), cls)
    elif _base_name(name) not in tfds.list_builders(with_community_datasets=False):
        raise _unknown(name)
    elif importlib.util.find_spec('tensorflow') is None:
        raise UserError(
            f'{name} is not prepared in {root}, and TFDS prepares it with TensorFlow only: '
            f"where that is installed, run tfds.builder('{name}', file_format='array_record', "
            'data_dir=DIR).download_and_prepare(), then set data_dir to DIR'
        )
    else:
        make_builder = functools.partial(tfds.builder, name)
    print(f'Preparing {name} in {root} (once) ...', file=sys.stderr, flush=True)
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # TFDS announces itself on stdout
            make_builder(data_dir=root, file_format='array_record').download_and_prepare()
    except OSError as error:
        # Another process may have prepared it meanwhile: then its result will be used.
        if _find_prepared(name, root) is None:
            raise UserError(
                f'cannot prepare {name} in {root} ({_first_line(error)}): '
                'set data_dir to a folder that can be written to, or to one that has the data set'
            ) from error


def _unknown(name: str) -> UserError:
    known = {*_BUILDERS, *tfds.list_builders(with_community_datasets=False)}
    close = difflib.get_close_matches(_base_name(name), sorted(known))
    hint = f'did you mean {" or ".join(close)}? ' if close else ''
    return UserError(
        f'unknown data set {name!r}: {hint}Built in are {" and ".join(_BUILDERS)}; '
        'any other must be an image data set of TFDS, or be prepared in data_dir; '
        "'folder' is the picture files below data_dir"
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
            f'only squares can be used, so {_RESIZE}'
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
    except NotImplementedError:  # TFRecord, say, which has no random access
        if importlib.util.find_spec('tensorflow') is None:
            raise UserError(
                f'{builder.info.full_name} in {builder.data_dir} has the format '
                f'{builder.info.file_format.value}, which only TensorFlow reads: install '
                'tensorflow, or set data_dir to another folder, where it is (or, if it is one of '
                f'{" and ".join(_BUILDERS)}, will be) prepared as array_record'
            ) from None
    return _read_with_tensorflow(builder, split)


def _select(records: Records, builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """Applies a sub-split such as 'train[:100]', which TFDS's Parquet reader ignores (4.9.10)."""
    shards = builder.info.splits[split].file_instructions
    if len(records) == sum(shard.take for shard in shards):
        return records
    sizes = [shard.examples_in_shard for shard in shards]
    if len(records) != sum(sizes):
        raise UserError(
            f'{builder.info.full_name} {split}: {builder.data_dir} holds {len(records)} records, '
            f'not {sum(sizes)}: delete it and prepare the data set again'
        )
    starts = np.cumsum(sizes) - sizes
    parts = [
        start + np.arange(shard.skip, shard.skip + shard.take)
        for start, shard in zip(starts, shards, strict=True)
    ]
    return _Selection(records, np.concatenate(parts))


def _read_with_tensorflow(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """Reads a split's images and labels into memory; TensorFlow is kept off the accelerator."""
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    wanted = {'image': True} | ({'label': True} if _class_names(builder) else {})
    dataset = builder.as_dataset(
        split, decoders=tfds.decode.PartialDecoding(wanted), shuffle_files=False
    )
    return _InMemory(tfds.as_numpy(dataset))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition('\n')[0]

"""Image data sets with random access: TFDS data sets and folders."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import classes as classes_lib
from dcgan_jax.data import identity, image_files, split_ranges
from dcgan_jax.data.corrupt_records import CheckedRecords
from dcgan_jax.data.image_folder import ImageFolder
from dcgan_jax.data.image_source import RESIZE_REMEDY, ImageSource
from dcgan_jax.data.tfds_data import (
    Selection,
    class_names,
    data_set_folder,
    find_or_prepare,
    first_line,
    open_records,
)
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import MAX_HASHED_BYTES, digest, is_regular_file, total_size


def open_source(
    name: str,
    split: str = 'train',
    data_dir: str | None = None,
    image_size: int = 0,
    on_corrupt: str = 'stop',
    max_pixels: int = image_files.MAX_PIXELS,
) -> ImageSource:
    """Open a split, after preparing the data set if necessary.

    Data sets that are not yet in the data directory are prepared: `cifar10` and `shapes` by this
    package's builders, others by TFDS, which requires TensorFlow. The data set 'folder' consists of
    the image files in `data_dir` (see `image_folder`) and has the single split 'train'.

    Args:
      name: TFDS name, optionally with a version, e.g. 'cifar10' or 'cifar10:3.0.2'; or 'folder'.
      split: TFDS split, e.g. 'train', 'test' or 'train[:1000]'.
      data_dir: Folder of the data sets; defaults to $TFDS_DATA_DIR or ~/tensorflow_datasets, which
        is created if needed. For 'folder', the folder of the images.
      image_size: Size to which images are cropped and resized; 0 to use square images as stored.
      on_corrupt: 'stop' to raise an error for a corrupt record, or 'skip' to use the next record.
      max_pixels: Largest allowed number of pixels of an image; only used for 'folder'.

    Raises:
      UserError: If the data set cannot be found, prepared or read, or its images are not supported.
    """
    if name == 'folder':
        return _open_folder(data_dir, split, image_size, on_corrupt, max_pixels)
    try:
        builder = find_or_prepare(name, data_dir)
        return _open_split(builder, split, image_size, on_corrupt)
    except ImportError as error:
        raise UserError(
            f'{name} needs a package that is missing ({first_line(error)}): '
            'pip install -r requirements.txt'
        ) from error


def input_folder(name: str, data_dir: str | None) -> str:
    """Return the folder whose files a data set consists of; '' if there is none.

    Args:
        name: See `open_source`.
        data_dir: See `open_source`.
    """
    return (data_dir or '') if name == 'folder' else data_set_folder(name, data_dir)


def open_split(config: ConfigDict, split: str) -> ImageSource:
    """Open a split of a run's data set, restricted to `config.data.classes`; see `open_source`.

    Raises:
        UserError: See `open_source` and `select_classes`; also if the run is conditional and its
            training split has no labels or no images of a class.
    """
    source = open_all_classes(config, split)
    if config.conditional and split == config.data.split:
        _check_conditional(source, config.data.classes)
    return select_classes(source, config.data.classes) if config.data.classes else source


def open_all_classes(config: ConfigDict, split: str) -> ImageSource:
    """Open a split of a run's data set with the images of all classes; see `open_source`."""
    fields = config.data
    return open_source(
        config.dataset, split, config.data_dir, fields.image_size, fields.on_corrupt,
        fields.max_pixels,
    )  # fmt: skip


def open_test_split(config: ConfigDict) -> ImageSource | None:
    """Open the test split; return None if there is none or some of it is used for training."""
    if config.dataset == 'folder':
        return None
    classes = config.data.classes
    try:
        test = open_all_classes(config, 'test')
        selected = select_classes(test, classes) if classes else test
    except UserError:
        return None
    train = open_all_classes(config, config.data.split)
    return None if split_ranges.overlap(train.ranges, test.ranges) else selected


def select_classes(source: ImageSource, classes: Sequence[int | str]) -> ImageSource:
    """Return the images of some classes, in their original order. All labels are read.

    Args:
        source: The split.
        classes: Names or indices, see `classes.find_classes`.

    Raises:
        UserError: If there are no labels or no images of the classes, or a class is unknown.
    """
    source.require_labels(f'remove config.data.classes={tuple(classes)}')
    classes = classes_lib.find_classes('config.data.classes', classes, source.class_names)
    described = classes_lib.describe(classes, source.class_names)
    indices = np.flatnonzero(np.isin(source.labels(), classes))
    if not len(indices):
        raise UserError(
            f'config.data.classes: {source.name} {source.split} has no images of {described}: '
            'select other classes'
        )
    logging.info(
        '%s %s: %d images of the classes %s', source.name, source.split, len(indices), described
    )
    return dataclasses.replace(
        source,
        split=f'{source.split}, classes {", ".join(map(str, classes))}',
        records=Selection(source.records, indices),
    )


def _check_conditional(source: ImageSource, classes: Sequence[int | str]) -> None:
    """Raise `UserError` unless there are labels and images of each selected class."""
    source.require_labels()
    selected = classes_lib.find_classes('config.data.classes', classes, source.class_names)
    empty = set(source.empty_classes) & set(selected or source.empty_classes)
    if empty:
        raise UserError(
            f'{source.name} {source.split} has no images of '
            f'{classes_lib.describe(sorted(empty), source.class_names)}, so a conditional run '
            'cannot learn them: use a larger config.data.split, or exclude them with '
            'config.data.classes'
        )


def _open_folder(
    data_dir: str | None, split: str, image_size: int, on_corrupt: str, max_pixels: int
) -> ImageSource:
    if not data_dir:
        raise UserError('config.dataset=folder needs config.data_dir, the folder of the images')
    skip_corrupt = on_corrupt == 'skip'
    folder = ImageFolder(data_dir, skip_corrupt=skip_corrupt, max_pixels=max_pixels)
    info = tfds.core.SplitInfo(name='train', shard_lengths=[len(folder)], num_bytes=0)
    try:
        ranges = split_ranges.parse(split, {'train': info})
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"{folder.name} {split} cannot be read ({first_line(error)}): use 'train' or a part of "
            "it, e.g. 'train[90%:]'"
        ) from error
    order = folder.split_order()
    indices = np.concatenate([np.sort(order[part.start : part.end]) for part in ranges])
    labels = [folder.labels[index] for index in indices] if folder.labels else []
    record_classes = [folder.classes[label] for label in labels]
    if not len(indices):
        raise UserError(f'{folder.name} {split} has no images: use another split')
    side = image_size or folder.side(RESIZE_REMEDY)
    return ImageSource(
        name=folder.name,
        split=split,
        image_shape=(side, side, folder.channels),
        records=CheckedRecords(
            Selection(folder, indices), f'{folder.name} {split}', on_corrupt, record_classes
        ),
        files=_existing(folder.files),
        ranges=ranges,
        identity={
            'images': len(folder),
            'names_and_sizes': folder.digest,
            'contents': _contents(folder),
        },
        class_names=tuple(folder.classes),
        image_size=image_size,
        # With 'stop', the settings do not affect which images are read.
        read_settings={'on_corrupt': on_corrupt, 'max_pixels': max_pixels} if skip_corrupt else {},
        no_labels_reason=folder.no_classes_reason,
        empty_classes=tuple(sorted(set(folder.labels or ()) - set(labels))),
    )


def _existing(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if path.exists()]  # A link may be dangling.


def _contents(folder: ImageFolder) -> str:
    """Return hashes of the contents of each class, or of all images if there are no classes.

    Returns:
        The hashes in the order of the classes, separated by spaces; '' if the images have more than
        `MAX_HASHED_BYTES`, because modification times, which `digest` uses then, change in copies.
    """
    if total_size(_existing(folder.files)) > MAX_HASHED_BYTES:
        return ''
    groups = [[] for _ in folder.classes or ['all']]
    for path, label in zip(folder.files, folder.labels or [0] * len(folder), strict=True):
        groups[label].append(path)
    found = map(_existing, groups)
    return ' '.join(digest(files)[:16] if files else identity.NO_FILES for files in found)


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
        ranges = split_ranges.parse(split, builder.info.splits)
        if all(part.start == part.end for part in ranges):
            raise UserError(f'{name} {split} has no images: use another split')
        records = CheckedRecords(open_records(builder, split), f'{name} {split}', on_corrupt)
        height, width, channels = records.__getitems__([0])[0]['image'].shape
    except UserError:
        raise
    except (KeyError, ValueError, OSError, RuntimeError) as error:
        raise UserError(f'{name} {split} cannot be read: {first_line(error)}') from error
    if image_size:
        height = width = image_size
    if height != width:
        raise UserError(
            f'{name} {split} has images of shape {(height, width, channels)}: '
            f'images must be square: {RESIZE_REMEDY}'
        )
    shape = height, width, channels
    sizes = {f'images_in_{key}': info.num_examples for key, info in builder.info.splits.items()}
    return ImageSource(
        name=name,
        split=split,
        image_shape=shape,
        records=records,
        ranges=ranges,
        files=sorted(filter(is_regular_file, epath.Path(builder.data_dir).iterdir())),
        identity={'name': name, **sizes},
        class_names=class_names(builder),
        image_size=image_size,
        read_settings={'on_corrupt': on_corrupt} if on_corrupt == 'skip' else {},
    )

"""TFDS data sets: lookup, preparation and records of splits."""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from google.protobuf import json_format
from tensorflow_datasets.core import naming, read_only_builder

from dcgan_jax.data import image_files
from dcgan_jax.runtime import cache_dir
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import resolve_path

# Imported only to prepare a data set: {name: (module, class, version)}.
_BUILDERS = {
    'cifar10': ('dcgan_jax.data.cifar10_builder', 'Cifar10', '3.0.2'),
    'shapes': ('dcgan_jax.data.shapes_builder', 'Shapes', '1.0.0'),
}
_NAME = re.compile(r'\w+([/:][\w./:*-]+)?')
_VERSION = re.compile(r'(\d+|\*)\.(\d+|\*)\.(\d+|\*)')
_FEATURES_FILE = 'features.json'
_DATA_FOLDER = 'tensorflow_datasets'  # In the user's home; TFDS's default.


class Records(Protocol):
    """Interface of TFDS's data sources; bulk reads are up to three times as fast as single ones."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> Sequence[dict]: ...


@dataclasses.dataclass(frozen=True)
class Selection:
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


def find_or_prepare(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Return the builder of a prepared data set, after preparing it if necessary.

    Args:
        name: See `sources.open_source`.
        data_dir: See `sources.open_source`.

    Raises:
        UserError: If the data set cannot be found or prepared.
    """
    name, root = _snake_case(name), _data_root(data_dir)
    builder = _find_prepared(name, root)
    if builder is None:
        folder = _prepare(name, root)
        builder = _find_prepared(name, root)
    if builder is None:
        raise _incomplete(folder)
    return builder


def data_set_folder(name: str, data_dir: str | None) -> str:
    """Return the path of the folder of all versions of a data set; '' if `name` is invalid.

    The folder may not exist.
    """
    is_valid = _NAME.fullmatch(name)
    return os.path.join(_data_path(data_dir), _base_name(_snake_case(name))) if is_valid else ''


def _given_path(data_dir: str | None) -> str:
    """Return the data directory given by the user, or ''."""
    return data_dir or os.environ.get('TFDS_DATA_DIR', '')


def _data_path(data_dir: str | None) -> str:
    return _given_path(data_dir) or os.fspath(cache_dir.home_folder(_DATA_FOLDER))


def _data_root(data_dir: str | None) -> epath.Path:
    root = resolve_path(_data_path(data_dir), 'data directory')
    if _given_path(data_dir) and not root.is_dir():
        raise UserError(f'data directory {root} does not exist: correct the path or create it')
    return root


def _snake_case(name: str) -> str:
    """Return the name with that of the data set in the form of its folder: Shapes is shapes."""
    base = _base_name(name)
    return naming.camelcase_to_snakecase(base) + name.removeprefix(base)


def _base_name(name: str) -> str:
    return re.split('[/:]', name)[0]


def _find_prepared(name: str, root: epath.Path) -> tfds.core.DatasetBuilder | None:
    """Return a builder that reads a data set prepared under `root`, or None.

    TFDS opens the newest version only. If its folder contains no data set, an older one is opened.
    """
    if not _NAME.fullmatch(name):
        raise _unknown(name)
    if (builder := _open(name, root)) is not None:
        return builder
    ignored = []
    for folder in _version_folders(name, root):
        builder = _open(f'{name.partition(":")[0]}:{folder.name}', root)
        if builder is not None:
            logging.warning('using %s; no data set in %s', builder.data_dir, ', '.join(ignored))
            return builder
        ignored.append(str(folder))
    return None


def _open(name: str, root: epath.Path) -> tfds.core.DatasetBuilder | None:
    """Return a builder of the version that TFDS selects, or None if its folder has no data set."""
    try:
        return read_only_builder.builder_from_files(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        return None
    except (ValueError, OSError, json_format.Error) as error:
        folders = filter(_has_features, _version_folders(name, root))
        folder = next(folders, root / _base_name(name))
        raise UserError(
            f'{folder} cannot be opened ({first_line(error)}): move it elsewhere, or set data_dir '
            'to another folder'
        ) from error


def _version_folders(name: str, root: epath.Path) -> list[epath.Path]:
    """Return the folders of the versions of a data set that match its name, the newest first."""
    prefix, _, requested = name.partition(':')
    requested = requested or '*.*.*'
    if not _VERSION.fullmatch(requested):
        return []
    parents = [root / prefix]
    try:
        if '/' not in prefix:  # The versions may be in the folder of the default configuration.
            parents += [path for path in parents[0].iterdir() if path.is_dir()]
        folders = [path for parent in parents for path in parent.iterdir()]
    except OSError:
        return []
    is_version = tfds.core.Version.is_valid
    matching = [
        path
        for path in folders
        if is_version(path.name) and path.is_dir() and tfds.core.Version(path.name).match(requested)
    ]
    return sorted(matching, key=lambda path: tfds.core.Version(path.name), reverse=True)


def _has_features(folder: epath.Path) -> bool:
    """Return whether TFDS regards a folder as a data set."""
    return (folder / _FEATURES_FILE).exists()


def _incomplete(folder: epath.Path) -> UserError:
    return UserError(
        f'{folder} contains no complete data set: move it elsewhere and try again, or set data_dir '
        'to another folder'
    )


def _prepare(name: str, root: epath.Path) -> epath.Path:
    """Prepare a data set under `root` in a format with random access; return its folder."""
    base, _, version = name.partition(':')
    module, cls, our_version = _BUILDERS.get(base, (None, None, None))
    if module and version in ('', our_version):
        make_builder = getattr(importlib.import_module(module), cls)
    elif _base_name(name) not in tfds.list_builders(with_community_datasets=False):
        folders = _version_folders(name, root)
        raise _incomplete(folders[0]) if folders else _unknown(name)
    elif importlib.util.find_spec('tensorflow') is None:
        raise UserError(
            f'{name} is not prepared in {root}, and preparing it requires TensorFlow: install it '
            f"and run tfds.builder('{name}', file_format='array_record', "
            'data_dir=DIR).download_and_prepare(), then set data_dir to DIR'
        )
    else:
        make_builder = functools.partial(tfds.builder, name)
    _check_no_images(root)
    print(f'Preparing {name} in {root} ...', file=sys.stderr, flush=True)
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints to stdout.
            builder = make_builder(data_dir=root, file_format='array_record')
            builder.download_and_prepare()
            return epath.Path(builder.data_dir)
    except (ValueError, OSError) as error:
        # Another process may have prepared the data set in the meantime.
        if (builder := _find_prepared(name, root)) is None:
            raise UserError(
                f'cannot prepare {name} in {root} ({first_line(error)}): '
                'set data_dir to a writable folder, or to one that has the data set'
            ) from error
        return epath.Path(builder.data_dir)


def _check_no_images(root: epath.Path) -> None:
    """Raise `UserError` if a folder, or a folder in it, contains images instead of data sets."""
    suffixes = tuple(image_files.supported_formats())
    try:
        folders = [root, *(path for path in root.iterdir() if path.is_dir())]
        names = (path.name.lower() for folder in folders for path in folder.iterdir())
        found = next((name for name in names if name.endswith(suffixes)), None)
    except OSError:  # It does not exist yet, or is reported below.
        return
    if found:
        raise UserError(
            f'data_dir={root} contains images ({found}), and data sets are not prepared among '
            'them: use another folder, or dataset=folder to read the images'
        )


def _unknown(name: str) -> UserError:
    known = {*_BUILDERS, *tfds.list_builders(with_community_datasets=False)}
    close = difflib.get_close_matches(_base_name(name), sorted(known))
    hint = f'did you mean {" or ".join(close)}? ' if close else ''
    return UserError(
        f'unknown data set {name!r}: {hint}The built-in data sets are {" and ".join(_BUILDERS)}; '
        'others must be image data sets of TFDS, or be prepared in data_dir; '
        "'folder' reads the image files in data_dir"
    )


def class_names(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Return the names of the classes; empty without labels."""
    label = dict(builder.info.features).get('label')
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        return ()
    return tuple(label.names)


def open_records(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """Return the records of a split.

    Raises:
        UserError: If TensorFlow is needed to read the records and is not installed, or if the
            number of records is wrong.
    """
    try:
        return _select(builder.as_data_source(split), builder, split)
    except NotImplementedError:  # The format, e.g. TFRecord, has no random access.
        if importlib.util.find_spec('tensorflow') is None:
            raise UserError(
                f'{builder.info.full_name} in {builder.data_dir} has the format '
                f'{builder.info.file_format.value}, which can only be read with TensorFlow: '
                'install tensorflow, or set data_dir to a folder with an array_record version '
                f'({" and ".join(_BUILDERS)} are prepared there if missing)'
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
    return Selection(records, np.concatenate(parts))


def _read_with_tensorflow(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """Read a split's images and labels into memory; TensorFlow does not use the accelerator."""
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    features = {'image': True} | ({'label': True} if class_names(builder) else {})
    dataset = builder.as_dataset(
        split, decoders=tfds.decode.PartialDecoding(features), shuffle_files=False
    )
    return _InMemory(tfds.as_numpy(dataset))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition('\n')[0]

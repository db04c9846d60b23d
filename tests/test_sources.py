import json
import logging
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from dcgan_jax.data import images, input_pipeline, sources, tfds_data
from dcgan_jax.runtime.errors import UserError
from tests.tiny import prepare_tiny


@pytest.fixture(scope='module')
def gray(tmp_path_factory):
    root = tmp_path_factory.mktemp('gray')
    prepare_tiny(root, [(6, 6, 1)])
    return root


@pytest.fixture(scope='module')
def labeled_dir(tmp_path_factory):
    """Folder of a data set whose image i has the gray value 20 * i and the label i % 4."""
    root = tmp_path_factory.mktemp('labeled')
    prepare_tiny(root, [(6, 6, 1)], label=lambda i: i % 4)
    return root


@pytest.fixture
def labeled(labeled_dir):
    return sources.open_source('tiny', 'train', str(labeled_dir))


@pytest.fixture
def source(gray):
    return sources.open_source('tiny', 'train', str(gray))


def test_source_reads_in_the_requested_order(source):
    images, labels = source.read(np.array([3, 0, 3, 9]))
    assert labels is None
    assert source.name == 'tiny/1.2.0'
    assert len(source) == 10
    assert source.image_shape == (6, 6, 1)
    assert source.nbytes == 360
    assert images.shape == (4, 6, 6, 1)
    assert images.dtype == np.uint8
    everything, labels = input_pipeline.load_split(source)
    assert labels is None
    np.testing.assert_array_equal(images, everything[[3, 0, 3, 9]])
    assert sorted(everything[:, 0, 0, 0]) == [20 * i for i in range(10)]


def test_labels_match_their_images(labeled):
    assert labeled.num_classes == 4
    images, labels = input_pipeline.load_split(labeled, labels=True)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] // 20 % 4)
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    indices = np.array([7, 7, 2])
    some = labeled.read(indices, labels=True)
    np.testing.assert_array_equal(some.labels, labels[indices])
    np.testing.assert_array_equal(some.images, images[indices])
    assert input_pipeline.load_split(labeled).labels is None


def test_missing_labels_are_rejected(source):
    assert source.num_classes == 0
    for read in (
        source.require_labels,
        lambda: input_pipeline.load_split(source, labels=True),
        lambda: next(input_pipeline.stream(source, 0, [(0, 1)], 2, labels=True)),
    ):
        with pytest.raises(
            UserError, match=r'tiny/1.2.0 has no labels .*set config\.conditional=False'
        ):
            read()


def test_unlabeled_image_is_rejected(tmp_path):
    """In unlabeled splits, such as that of STL-10, TFDS stores the label -1."""
    prepare_tiny(tmp_path, [(6, 6, 1)], label=lambda i: -1 if i == 4 else 0)
    source = sources.open_source('tiny', 'train', str(tmp_path))
    assert len(input_pipeline.load_split(source).images) == 10
    with pytest.raises(UserError, match=r'image \d has the label -1, not one of 0 to 3'):
        input_pipeline.load_split(source, labels=True)


def test_data_dir_is_read_from_the_environment(gray, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(gray))
    assert len(sources.open_source('tiny')) == 10
    with pytest.raises(UserError, match='does not exist'):
        sources.open_source('tiny', data_dir=str(gray / 'typo'))
    assert not (gray / 'typo').exists()


def test_default_data_dir_is_created(tmp_path, monkeypatch):
    monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert tfds_data._data_root(None) == tmp_path / 'tensorflow_datasets'
    with pytest.raises(UserError, match='unknown data set'):
        sources.open_source('tinny')


def test_images_of_different_sizes_are_rejected(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1), (8, 8, 1)])
    source = sources.open_source('tiny', 'train', str(tmp_path))
    message = r'tiny/1.2.0 train: image \d+ has shape .* set config\.data\.image_size'
    with pytest.raises(UserError, match=message):
        input_pipeline.load_split(source)


def test_non_square_images_are_rejected(tmp_path):
    prepare_tiny(tmp_path, [(6, 8, 3)])
    message = r'\(6, 8, 3\).*set config\.data\.image_size'
    with pytest.raises(UserError, match=message):
        sources.open_source('tiny', 'train', str(tmp_path))


@pytest.mark.parametrize('channels', [1, 3])
def test_images_are_resized_to_image_size(tmp_path, channels):
    """Images have other sizes than requested, also smaller ones (4x4)."""
    shapes = [(9, 7, channels), (6, 12, channels), (5, 5, channels), (4, 4, channels)]
    prepare_tiny(tmp_path, shapes, label=lambda i: i % 4)
    source = sources.open_source('tiny', 'train', str(tmp_path), image_size=5)
    assert source.image_shape == (5, 5, channels)
    assert source.nbytes == 10 * 25 * channels
    images, labels = input_pipeline.load_split(source, labels=True)
    assert images.shape == (10, 5, 5, channels)
    assert images.flags.c_contiguous
    # Each image has a constant value.
    np.testing.assert_array_equal(images, np.broadcast_to(images[:, :1, :1, :1], images.shape))
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] // 20 % 4)
    streamed = list(input_pipeline.stream(source, 0, [(0, 1)], batch_size=10, labels=True))
    indices = input_pipeline.batch_indices(0, 0, 10, 10)
    np.testing.assert_array_equal(streamed[0].images, images[indices])


def test_unknown_name_is_rejected_with_suggestions(tmp_path):
    with pytest.raises(UserError, match='did you mean cifar10 or') as error:
        sources.open_source('cifr10', data_dir=str(tmp_path))
    assert 'cifar10 and shapes' in str(error.value)
    with pytest.raises(UserError, match='unknown data set'):
        sources.open_source('../shapes', data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_unknown_split_is_rejected_with_the_known_splits(gray):
    with pytest.raises(UserError, match=r"nope.*\['train'\]"):
        sources.open_source('tiny', 'nope', str(gray))
    with pytest.raises(UserError, match='no images'):
        sources.open_source('tiny', 'train[:0]', str(gray))


def test_tfds_preparation_needs_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_data.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'mnist is not prepared in .*TensorFlow'):
        sources.open_source('mnist', data_dir=str(tmp_path))


@pytest.fixture
def tfrecord_dir(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1)])
    folder = tmp_path / 'tiny' / '1.2.0'
    info = json.loads((folder / 'dataset_info.json').read_text())
    info['fileFormat'] = 'tfrecord'
    (folder / 'dataset_info.json').write_text(json.dumps(info))
    for shard in folder.glob('*array_record*'):
        shard.rename(str(shard).replace('array_record', 'tfrecord'))
    return tmp_path


def test_tfrecord_without_tensorflow_is_rejected(tfrecord_dir, monkeypatch):
    monkeypatch.setattr(tfds_data.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'has the format tfrecord.*install tensorflow, or set'):
        sources.open_source('tiny', 'train', str(tfrecord_dir))


def test_tfrecord_equals_array_record(tmp_path):
    pytest.importorskip('tensorflow')
    splits = []
    for file_format in ('array_record', 'tfrecord'):
        prepare_tiny(tmp_path / file_format, [(6, 6, 1)], file_format, label=lambda i: i % 4)
        source = sources.open_source('tiny', 'train[2:]', str(tmp_path / file_format))
        splits.append(input_pipeline.load_split(source, labels=True))
    jax.tree.map(np.testing.assert_array_equal, *splits)


@pytest.mark.parametrize('file_format', ['array_record', 'parquet'])
def test_sub_splits(tmp_path, file_format):
    prepare_tiny(tmp_path, [(6, 6, 1)], file_format)
    whole = input_pipeline.load_split(sources.open_source('tiny', 'train', str(tmp_path))).images
    for split, part in {
        'train[:3]': [0, 1, 2],
        'train[50%:]': [5, 6, 7, 8, 9],
        'train[8:]+train[2:4]': [8, 9, 2, 3],
    }.items():
        images = input_pipeline.load_split(sources.open_source('tiny', split, str(tmp_path))).images
        np.testing.assert_array_equal(images, whole[part])


def test_missing_records_are_detected(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1)], 'parquet')
    info = tmp_path / 'tiny' / '1.2.0' / 'dataset_info.json'
    info.write_text(info.read_text().replace('"10"', '"11"'))
    with pytest.raises(UserError, match='10 records, not 11'):
        sources.open_source('tiny', 'train', str(tmp_path))


def test_dataset_info_without_splits_is_rejected(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1)])
    path = tmp_path / 'tiny' / '1.2.0' / 'dataset_info.json'
    info = json.loads(path.read_text())
    del info['splits']
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r'tiny/1.2.0 train cannot be read'):
        sources.open_source('tiny', 'train', str(tmp_path))


def test_missing_shard_is_rejected(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1)])
    for shard in (tmp_path / 'tiny' / '1.2.0').glob('*array_record*'):
        shard.unlink()
    with pytest.raises(UserError, match=r'tiny/1.2.0 train: record 0 .*No such file'):
        sources.open_source('tiny', 'train', str(tmp_path))
    with pytest.raises(UserError, match=r'10 records in a row from 0 on are corrupt'):
        sources.open_source('tiny', 'train', str(tmp_path), on_corrupt='skip')


def test_missing_decoder_is_named(gray, monkeypatch):
    from tensorflow_datasets.core.features import image_feature

    monkeypatch.setattr(image_feature, 'cv2', None)
    monkeypatch.setattr(image_feature, 'PIL_Image', None)
    with pytest.raises(UserError, match='OpenCV or PIL'):
        sources.open_source('tiny', 'train', str(gray))


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='no folder that even root cannot write to')
def test_preparing_in_an_unwritable_folder_is_rejected():
    with pytest.raises(UserError, match=r'cannot prepare shapes in /proc .*set data_dir'):
        sources.open_source('shapes', 'test', '/proc')


def test_file_in_place_of_the_data_set_is_rejected(tmp_path):
    (tmp_path / 'shapes').write_text('')
    with pytest.raises(UserError, match=r'shapes cannot be opened .*set data_dir'):
        sources.open_source('shapes', 'test', str(tmp_path))


def prepare_with_a_corrupt_record(root):
    """Prepare `tiny`, damage an image in its file, and return the original images and labels."""
    prepare_tiny(root, [(6, 6, 1)], label=lambda i: i % 4)
    source = sources.open_source('tiny', 'train', str(root))
    whole = source.read(np.arange(len(source)), labels=True)
    (path,) = Path(root).rglob('tiny-train.array_record*')
    content = bytearray(path.read_bytes())
    content[content.index(b'IDAT') + 8] ^= 255
    path.write_bytes(content)
    return whole


def test_corrupt_record_is_rejected_or_replaced_by_the_next(tmp_path, caplog):
    whole = prepare_with_a_corrupt_record(tmp_path)
    with pytest.raises(UserError, match=r'tiny/1\.2\.0 train: record \d+ is corrupt .*on_corrupt'):
        sources.open_source('tiny', 'train', str(tmp_path)).read(np.arange(10))
    caplog.set_level(logging.WARNING)
    damaged = sources.open_source('tiny', 'train', str(tmp_path), on_corrupt='skip')
    got = input_pipeline.load_split(damaged, labels=True)
    (warning,) = [line for line in caplog.messages if 'is corrupt' in line]
    index = int(re.search(r'record (\d+) is corrupt', warning).group(1))
    assert '1 so far' in warning
    following = (index + 1) % 10
    replacement = np.arange(10)
    replacement[index] = following
    np.testing.assert_array_equal(got.images, whole.images[replacement])
    np.testing.assert_array_equal(got.labels, whole.labels[replacement])
    again = damaged.read(np.array([index, 0, index]))
    np.testing.assert_array_equal(again.images, whole.images[replacement[[index, 0, index]]])
    assert sum('is corrupt' in line for line in caplog.messages) == 1, (
        'A record is counted more than once.'
    )


def test_damaged_images_of_a_folder_are_skipped_on_request(tmp_path, caplog):
    for value in range(4):
        images.write_png(tmp_path / f'{value}.png', np.full((8, 8, 3), value, np.uint8))
    whole = (tmp_path / '3.png').read_bytes()
    (tmp_path / '3.png').write_bytes(whole[:50])  # The header is intact.
    (tmp_path / '1.png').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'1\.png'):
        sources.open_source('folder', data_dir=str(tmp_path))
    source = sources.open_source('folder', data_dir=str(tmp_path), on_corrupt='skip')
    assert source.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(
        input_pipeline.load_split(source).images[:, 0, 0, 0], [0, 2, 2, 0]
    )
    assert '2 so far' in caplog.text


def test_class_with_only_corrupt_images_is_reported_in_a_warning(tmp_path, caplog):
    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        for value in range(3):
            pixels = np.random.default_rng(value).integers(0, 256, (8, 8, 3), np.uint8)
            images.write_png(tmp_path / name / f'{value}.png', pixels)
    for path in (*(tmp_path / 'cat').iterdir(), tmp_path / 'dog' / '1.png'):
        path.write_bytes(path.read_bytes()[:50])  # The header is intact.
    source = sources.open_source('folder', data_dir=str(tmp_path), on_corrupt='skip')
    input_pipeline.load_split(source)
    (warning,) = (line for line in caplog.messages if 'all records' in line)
    assert "'cat'" in warning


def test_folder_with_damaged_images_only_is_rejected(tmp_path):
    (tmp_path / '1.png').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'config\.data_dir'):
        sources.open_source('folder', data_dir=str(tmp_path), on_corrupt='skip')

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from dcgan_jax import data
from dcgan_jax.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'tfds'
# SHA-256 of the pixels of the copy's test split, as its README states it.
SHARED_TEST_SHA256 = '3a9a3752963dccd5df9ce7aa774c72568c8ad5d4eef8808be23bf0d56fd17693'


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Ten images of the given shapes, in turn: a data set that TFDS has no code for.

    Image i is of grey value 20 * i; its label, where the data set has labels, is label(i).
    """

    VERSION = tfds.core.Version('1.2.0')
    shapes = ((6, 6, 1),)
    label = None

    def _info(self):
        image = tfds.features.Image(shape=(None, None, self.shapes[0][-1]))
        features = {'image': image}
        if self.label:  # As CIFAR-100 has them: `label` is one of several.
            features['coarse_label'] = tfds.features.ClassLabel(names=['even', 'odd'])
            features['label'] = tfds.features.ClassLabel(names=['apple', 'bear', 'can', 'dolphin'])
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        import PIL.Image

        for i in range(10):
            pixels = np.full(self.shapes[i % len(self.shapes)], 20 * i, np.uint8)
            record = {'image': PIL.Image.fromarray(pixels.squeeze())}
            if self.label:
                record |= {'coarse_label': i % 2, 'label': type(self).label(i)}
            yield i, record


def prepare_tiny(root, shapes, file_format='array_record', label=None):
    class Builder(Tiny, skip_registration=True):
        name = 'tiny'

    Builder.shapes, Builder.label = shapes, label
    Builder(data_dir=root, file_format=file_format).download_and_prepare()


@pytest.fixture(scope='module', autouse=True)
def no_progress_bars():
    tfds.disable_progress_bar()


@pytest.fixture(scope='module')
def grey(tmp_path_factory):
    root = tmp_path_factory.mktemp('grey')
    prepare_tiny(root, [(6, 6, 1)])
    return root


@pytest.fixture(scope='module')
def labelled_dir(tmp_path_factory):
    """Image i, of grey value 20 * i, has the label i % 4."""
    root = tmp_path_factory.mktemp('labelled')
    prepare_tiny(root, [(6, 6, 1)], label=lambda i: i % 4)
    return root


@pytest.fixture
def labelled(labelled_dir):
    return data.open_source('tiny', 'train', str(labelled_dir))


@pytest.fixture
def source(grey):
    return data.open_source('tiny', 'train', str(grey))


def test_source_reads_in_the_order_asked_for(source):
    images, labels = source.read(np.array([3, 0, 3, 9]))
    assert labels is None
    assert source.name == 'tiny/1.2.0'
    assert len(source) == 10
    assert source.image_shape == (6, 6, 1)
    assert source.nbytes == 360
    assert images.shape == (4, 6, 6, 1)
    assert images.dtype == np.uint8
    everything, labels = data.load_split(source)
    assert labels is None
    np.testing.assert_array_equal(images, everything[[3, 0, 3, 9]])
    assert sorted(everything[:, 0, 0, 0]) == [20 * i for i in range(10)]


def test_labels_stay_with_their_images(labelled):
    assert labelled.num_classes == 4
    images, labels = data.load_split(labelled, labels=True)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] // 20 % 4)
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    indices = np.array([7, 7, 2])
    some = labelled.read(indices, labels=True)
    np.testing.assert_array_equal(some.labels, labels[indices])
    np.testing.assert_array_equal(some.images, images[indices])
    assert data.load_split(labelled).labels is None


def test_labels_where_there_are_none(source):
    assert source.num_classes == 0
    for read in (
        source.require_labels,
        lambda: data.load_split(source, labels=True),
        lambda: next(data.stream(source, 0, [(0, 1)], 2, labels=True)),
    ):
        with pytest.raises(
            UserError, match=r'tiny/1.2.0 has no labels .*set config\.conditional=False'
        ):
            read()


def test_an_image_without_its_label(tmp_path):
    """As in STL-10's unlabelled split: TFDS stores -1."""
    prepare_tiny(tmp_path, [(6, 6, 1)], label=lambda i: -1 if i == 4 else 0)
    source = data.open_source('tiny', 'train', str(tmp_path))
    assert len(data.load_split(source).images) == 10
    with pytest.raises(UserError, match=r'image \d has the label -1, not one of 0 to 3'):
        data.load_split(source, labels=True)


def test_environment_names_the_data_dir(grey, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(grey))
    assert len(data.open_source('tiny')) == 10
    with pytest.raises(UserError, match='does not exist'):
        data.open_source('tiny', data_dir=str(grey / 'typo'))
    assert not (grey / 'typo').exists()


def test_default_data_dir_is_created(tmp_path, monkeypatch):
    monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert data._data_root(None) == tmp_path / 'tensorflow_datasets'
    with pytest.raises(UserError, match='unknown data set'):
        data.open_source('tinny')


def test_one_size_only(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1), (8, 8, 1)])
    source = data.open_source('tiny', 'train', str(tmp_path))
    message = r'tiny/1.2.0 train: image \d+ has shape .* set config\.data\.image_size'
    with pytest.raises(UserError, match=message):
        data.load_split(source)


def test_square_only(tmp_path):
    prepare_tiny(tmp_path, [(6, 8, 3)])
    message = r'\(6, 8, 3\): only squares .* set config\.data\.image_size'
    with pytest.raises(UserError, match=message):
        data.open_source('tiny', 'train', str(tmp_path))


@pytest.mark.parametrize('channels', [1, 3])
def test_images_of_any_size_are_read_at_one(tmp_path, channels):
    """CelebA is 218x178 everywhere; LSUN's sizes differ; 4x4 is smaller than asked for."""
    shapes = [(9, 7, channels), (6, 12, channels), (5, 5, channels), (4, 4, channels)]
    prepare_tiny(tmp_path, shapes, label=lambda i: i % 4)
    source = data.open_source('tiny', 'train', str(tmp_path), image_size=5)
    assert source.image_shape == (5, 5, channels)
    assert source.nbytes == 10 * 25 * channels
    images, labels = data.load_split(source, labels=True)
    assert images.shape == (10, 5, 5, channels)
    assert images.flags.c_contiguous
    # Images are of one value each.
    np.testing.assert_array_equal(images, np.broadcast_to(images[:, :1, :1, :1], images.shape))
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] // 20 % 4)
    streamed = list(data.stream(source, 0, [(0, 1)], batch_size=10, labels=True))
    indices = data.batch_indices(0, 0, 10, 10)
    np.testing.assert_array_equal(streamed[0].images, images[indices])


def test_unknown_name_lists_close_ones(tmp_path):
    with pytest.raises(UserError, match='did you mean cifar10 or') as error:
        data.open_source('cifr10', data_dir=str(tmp_path))
    assert 'Built in are cifar10 and shapes' in str(error.value)
    with pytest.raises(UserError, match='unknown data set'):
        data.open_source('../shapes', data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_unknown_split_lists_the_splits(grey):
    with pytest.raises(UserError, match=r"nope.*\['train'\]"):
        data.open_source('tiny', 'nope', str(grey))
    with pytest.raises(UserError, match='no images'):
        data.open_source('tiny', 'train[:0]', str(grey))


def test_tfds_preparation_needs_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(data.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'mnist is not prepared in .*TensorFlow only'):
        data.open_source('mnist', data_dir=str(tmp_path))


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


def test_tfrecord_without_tensorflow(tfrecord_dir, monkeypatch):
    monkeypatch.setattr(data.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'has the format tfrecord.*install tensorflow, or set'):
        data.open_source('tiny', 'train', str(tfrecord_dir))


def test_tfrecord_with_tensorflow(tmp_path):
    pytest.importorskip('tensorflow')
    splits = []
    for file_format in ('array_record', 'tfrecord'):
        prepare_tiny(tmp_path / file_format, [(6, 6, 1)], file_format, label=lambda i: i % 4)
        source = data.open_source('tiny', 'train[2:]', str(tmp_path / file_format))
        splits.append(data.load_split(source, labels=True))
    jax.tree.map(np.testing.assert_array_equal, *splits)


@pytest.mark.parametrize('file_format', ['array_record', 'parquet'])
def test_parts_of_a_split(tmp_path, file_format):
    prepare_tiny(tmp_path, [(6, 6, 1)], file_format)
    whole = data.load_split(data.open_source('tiny', 'train', str(tmp_path))).images
    for split, part in {
        'train[:3]': [0, 1, 2],
        'train[50%:]': [5, 6, 7, 8, 9],
        'train[8:]+train[2:4]': [8, 9, 2, 3],
    }.items():
        images = data.load_split(data.open_source('tiny', split, str(tmp_path))).images
        np.testing.assert_array_equal(images, whole[part])


def test_lost_records_are_noticed(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1)], 'parquet')
    info = tmp_path / 'tiny' / '1.2.0' / 'dataset_info.json'
    info.write_text(info.read_text().replace('"10"', '"11"'))
    with pytest.raises(UserError, match='holds 10 records, not 11'):
        data.open_source('tiny', 'train', str(tmp_path))


def test_missing_shard(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1)])
    for shard in (tmp_path / 'tiny' / '1.2.0').glob('*array_record*'):
        shard.unlink()
    with pytest.raises(UserError, match=r'tiny/1.2.0 train cannot be read'):
        data.open_source('tiny', 'train', str(tmp_path))


def test_missing_decoder_is_named(grey, monkeypatch):
    from tensorflow_datasets.core.features import image_feature

    monkeypatch.setattr(image_feature, 'cv2', None)
    monkeypatch.setattr(image_feature, 'PIL_Image', None)
    with pytest.raises(UserError, match='OpenCV or PIL'):
        data.open_source('tiny', 'train', str(grey))


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='no folder that even root cannot write to')
def test_preparing_needs_a_folder_that_can_be_written():
    with pytest.raises(UserError, match=r'cannot prepare shapes in /proc .*set data_dir'):
        data.open_source('shapes', 'test', '/proc')


def test_file_where_the_data_set_should_be(tmp_path):
    (tmp_path / 'shapes').write_text('')
    with pytest.raises(UserError, match=r'shapes in .* cannot be opened .*set data_dir'):
        data.open_source('shapes', 'test', str(tmp_path))


def test_half_copied_data_set_is_not_used(tmp_path):
    (tmp_path / 'shapes' / '1.0.0').mkdir(parents=True)
    with pytest.raises(UserError, match='incomplete: delete it'):
        data.open_source('shapes', 'test', str(tmp_path))


def reference_order(seed, n, count):
    """The endless sequence, written as a loop: rank each epoch's random 64-bit numbers."""
    sequence = []
    epoch = 0
    while len(sequence) < count:
        draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n).tolist()
        sequence += sorted(range(n), key=draws.__getitem__)
        epoch += 1
    return sequence[:count]


def test_epochs_are_different_permutations():
    orders = [data.epoch_order(7, epoch, 100) for epoch in range(20)]
    for order in orders:
        assert sorted(order) == list(range(100))
    assert len({tuple(order) for order in orders}) == 20
    assert tuple(data.epoch_order(8, 0, 100)) != tuple(orders[0])
    # Every image is as likely in every place: the mean place over 20 epochs is near the middle.
    assert (
        abs(np.mean([np.flatnonzero(order == 5)[0] for order in orders]) - 49.5) < 4 * 29 / 20**0.5
    )


@pytest.mark.parametrize(('n', 'batch_size'), [(10, 3), (10, 5), (4, 11), (1, 2), (50, 50)])
def test_batches_follow_the_endless_sequence(n, batch_size):
    steps = 13
    expected = np.reshape(reference_order(3, n, steps * batch_size), (steps, batch_size))
    at_once = data.batch_indices(3, 0, batch_size, n, num_batches=steps)
    assert at_once.dtype == np.int32
    np.testing.assert_array_equal(at_once, expected)
    for step in range(steps):
        np.testing.assert_array_equal(
            data.batch_indices(3, step, batch_size, n), expected[step : step + 1]
        )


def test_order_is_pinned():
    # A checkpoint of today must go on with the same batches tomorrow.
    np.testing.assert_array_equal(data.epoch_order(0, 0, 10), [0, 2, 9, 1, 8, 5, 4, 3, 6, 7])


def test_placement(source):
    assert data.fits_on_device(source, 'auto', 360)
    assert not data.fits_on_device(source, 'auto', 359)
    assert data.fits_on_device(source, 'device', 0)
    assert not data.fits_on_device(source, 'stream', 10**9)


def test_stream_equals_the_array(labelled):
    split = data.load_split(labelled, labels=True)
    ranges = [(0, 3), (3, 6), (6, 10), (10, 11)]
    elements = list(data.stream(labelled, 5, ranges, batch_size=4, labels=True))
    for (first, end), element in zip(ranges, elements, strict=True):
        indices = data.batch_indices(5, first, 4, len(labelled), num_batches=end - first)
        assert (element.images.dtype, element.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(element.images, split.images[indices])
        np.testing.assert_array_equal(element.labels, split.labels[indices])
    assert next(data.stream(labelled, 5, ranges, batch_size=4)).labels is None


class Spy(data.ImageSource):
    """Slow, and counts the reads of all its kind."""

    reads: ClassVar[list[int]] = []

    def read(self, indices, labels=False):
        time.sleep(0.01)
        self.reads.append(len(indices))
        return super().read(indices, labels)


@pytest.fixture
def spy(labelled):
    Spy.reads.clear()
    return Spy(
        labelled.name, labelled.split, labelled.image_shape, labelled.records, labelled.num_classes
    )


def test_stream_resumes_without_reading_what_came_before(labelled, spy):
    ranges = [(first, first + 2) for first in range(0, 12, 2)]
    whole = list(data.stream(labelled, 5, ranges, batch_size=4, labels=True))
    resumed = list(data.stream(spy, 5, ranges[4:], batch_size=4, labels=True))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole[4:])
    assert spy.reads == [4, 4, 4, 4]


def test_rows_of_the_processes_make_up_the_batch(labelled):
    def rows(part):
        batches = data.stream(labelled, 5, [(0, 2), (2, 6)], 4, rows=part, labels=True)
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)

    parts = rows(slice(0, 3)), rows(slice(3, 4))
    together = jax.tree.map(lambda *arrays: np.concatenate(arrays, 1), *parts)
    jax.tree.map(np.testing.assert_array_equal, together, rows(slice(None)))


def test_dropped_stream_stops_reading_and_leaves_no_thread(spy):
    ranges = [(first, first + 20) for first in range(0, 1000, 20)]
    batches = data.stream(spy, 5, ranges, batch_size=4, num_threads=1)
    next(batches)
    batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith('grain-prefetch'):
            thread.join(timeout=5)
            assert not thread.is_alive()
    assert 20 <= len(spy.reads) < 30  # of the 20 batches to come, none but the one under way


def test_broken_image_surfaces_from_the_stream(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1), (8, 8, 1)])
    source = data.open_source('tiny', 'train', str(tmp_path))
    with pytest.raises(UserError, match='has shape'):
        list(data.stream(source, 0, [(0, 3)], batch_size=10))


def test_real_cifar10():
    if not SHARED.is_dir():
        pytest.skip(f'no CIFAR-10 in {SHARED}')
    test = data.open_source('cifar10', 'test', str(SHARED))
    images, labels = data.load_split(test, labels=True)
    assert images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), np.full(test.num_classes, 1000))
    assert hashlib.sha256(images).hexdigest() == SHARED_TEST_SHA256

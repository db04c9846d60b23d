import hashlib
import threading
import time
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest

from dcgan_jax.data import image_source, input_pipeline, sources
from dcgan_jax.runtime.errors import UserError
from tests.tiny import prepare_tiny

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'tfds'
# SHA-256 of the pixels of the local copy's test split.
SHARED_TEST_SHA256 = '3a9a3752963dccd5df9ce7aa774c72568c8ad5d4eef8808be23bf0d56fd17693'


@pytest.fixture
def labeled(data_dir):
    return sources.open_source('tiny_images', 'train', str(data_dir))


def reference_order(seed, n, count):
    """Return the first indices of the infinite sequence: argsort of each epoch's random numbers."""
    sequence = []
    epoch = 0
    while len(sequence) < count:
        draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n).tolist()
        sequence += sorted(range(n), key=draws.__getitem__)
        epoch += 1
    return sequence[:count]


def test_epochs_are_different_permutations():
    orders = [input_pipeline.epoch_order(7, epoch, 100) for epoch in range(20)]
    for order in orders:
        assert sorted(order) == list(range(100))
    assert len({tuple(order) for order in orders}) == 20
    assert tuple(input_pipeline.epoch_order(8, 0, 100)) != tuple(orders[0])
    # Positions are uniform: the mean position over 20 epochs is near the middle.
    assert (
        abs(np.mean([np.flatnonzero(order == 5)[0] for order in orders]) - 49.5) < 4 * 29 / 20**0.5
    )


@pytest.mark.parametrize(('n', 'batch_size'), [(10, 3), (10, 5), (4, 11), (1, 2), (50, 50)])
def test_batches_follow_the_infinite_sequence(n, batch_size):
    steps = 13
    expected = np.reshape(reference_order(3, n, steps * batch_size), (steps, batch_size))
    at_once = input_pipeline.batch_indices(3, 0, batch_size, n, num_batches=steps)
    assert at_once.dtype == np.int32
    np.testing.assert_array_equal(at_once, expected)
    for step in range(steps):
        np.testing.assert_array_equal(
            input_pipeline.batch_indices(3, step, batch_size, n), expected[step : step + 1]
        )


def test_epoch_order_is_stable_across_versions():
    # Checkpoints must resume with the same batches in later versions.
    np.testing.assert_array_equal(
        input_pipeline.epoch_order(0, 0, 10), [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    )


def test_auto_placement_depends_on_the_size(labeled):
    assert input_pipeline.is_device_resident(labeled, 'auto', 40 * 8 * 8 * 3)
    assert not input_pipeline.is_device_resident(labeled, 'auto', 40 * 8 * 8 * 3 - 1)
    assert input_pipeline.is_device_resident(labeled, 'device', 0)
    assert not input_pipeline.is_device_resident(labeled, 'stream', 10**9)


def test_stream_equals_load_split(labeled):
    split = input_pipeline.load_split(labeled, labels=True)
    ranges = [(0, 3), (3, 6), (6, 10), (10, 11)]
    elements = list(input_pipeline.stream(labeled, 5, ranges, batch_size=4, labels=True))
    for (first, end), element in zip(ranges, elements, strict=True):
        indices = input_pipeline.batch_indices(5, first, 4, len(labeled), num_batches=end - first)
        assert (element.images.dtype, element.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(element.images, split.images[indices])
        np.testing.assert_array_equal(element.labels, split.labels[indices])
    assert next(input_pipeline.stream(labeled, 5, ranges, batch_size=4)).labels is None


class Spy(image_source.ImageSource):
    """Slow source that records the sizes of all reads."""

    reads: ClassVar[list[int]] = []

    def read(self, indices, labels=False):
        time.sleep(0.01)
        self.reads.append(len(indices))
        return super().read(indices, labels)


@pytest.fixture
def spy(labeled):
    Spy.reads.clear()
    return Spy(
        labeled.name,
        labeled.split,
        labeled.image_shape,
        labeled.records,
        class_names=labeled.class_names,
    )


def test_stream_resumes_without_reading_earlier_batches(labeled, spy):
    ranges = [(first, first + 2) for first in range(0, 12, 2)]
    whole = list(input_pipeline.stream(labeled, 5, ranges, batch_size=4, labels=True))
    resumed = list(input_pipeline.stream(spy, 5, ranges[4:], batch_size=4, labels=True))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole[4:])
    assert spy.reads == [4, 4, 4, 4]


def test_rows_of_all_processes_form_the_batch(labeled):
    def rows(part):
        batches = input_pipeline.stream(labeled, 5, [(0, 2), (2, 6)], 4, rows=part, labels=True)
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches)

    parts = rows(slice(0, 3)), rows(slice(3, 4))
    together = jax.tree.map(lambda *arrays: np.concatenate(arrays, 1), *parts)
    jax.tree.map(np.testing.assert_array_equal, together, rows(slice(None)))


def test_closed_stream_stops_reading_and_ends_its_threads(spy):
    ranges = [(first, first + 20) for first in range(0, 1000, 20)]
    batches = input_pipeline.stream(spy, 5, ranges, batch_size=4, num_threads=1)
    next(batches)
    batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith('grain-prefetch'):
            thread.join(timeout=5)
            assert not thread.is_alive()
    assert 20 <= len(spy.reads) < 30  # At most the batch in progress is read after closing.


def test_stream_raises_errors_of_images(tmp_path):
    prepare_tiny(tmp_path, [(6, 6, 1), (8, 8, 1)])
    source = sources.open_source('tiny', 'train', str(tmp_path))
    with pytest.raises(UserError, match='has shape'):
        list(input_pipeline.stream(source, 0, [(0, 3)], batch_size=10))


def test_cifar10_copy_has_the_expected_pixels_and_labels():
    if not SHARED.is_dir():
        pytest.skip(f'no CIFAR-10 in {SHARED}')
    test = sources.open_source('cifar10', 'test', str(SHARED))
    images, labels = input_pipeline.load_split(test, labels=True)
    assert images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), np.full(test.num_classes, 1000))
    assert hashlib.sha256(images).hexdigest() == SHARED_TEST_SHA256

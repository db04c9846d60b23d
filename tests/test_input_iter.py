"""The input pipeline yields the same batches from the device and from the stream."""

import contextlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from dcgan_jax.data import image_source, input_pipeline
from dcgan_jax.runtime import sharding
from dcgan_jax.runtime.errors import UserError

RANGES = [(2, 4), (4, 7)]


class Numbered(list):
    """Ten 2x2 images: image i has the value i everywhere and the label 9 - i."""

    def __init__(self):
        super().__init__(
            {'image': np.full((2, 2, 3), i, np.uint8), 'label': np.int64(9 - i)} for i in range(10)
        )

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def call_batches(placement, num_classes=10, **fields):
    """Return the batch of each call; batches of indices are replaced by their images."""
    config = ConfigDict({'seed': 3, 'batch_size': 4, 'conditional': False})
    config.update({'discriminator_steps': 1, **fields})
    config.data = {'placement': placement, 'device_limit_bytes': 0}
    names = tuple(map(str, range(num_classes)))
    source = image_source.ImageSource('numbered', 'train', (2, 2, 3), Numbered(), class_names=names)
    split, batches = input_pipeline.create_input_iter(
        config, sharding.create_mesh(4), source, RANGES
    )
    with contextlib.closing(batches):
        batches = list(batches)
    if split is None:
        return jax.tree.map(np.asarray, batches)
    assert all(batch.dtype == np.int32 for batch in batches)
    assert split.images.shape == (10, 12)
    split = split._replace(images=split.images.reshape(10, 2, 2, 3))
    return [jax.tree.map(lambda leaf, rows=batch: leaf[rows], split) for batch in batches]


@pytest.mark.parametrize('steps', [1, 3])
@pytest.mark.parametrize('placement', ['device', 'stream'])
def test_batches_follow_batch_indices(placement, steps):
    for (first, end), batch in zip(
        RANGES, call_batches(placement, conditional=True, discriminator_steps=steps), strict=True
    ):
        expected = input_pipeline.batch_indices(3, first, 4 * steps, 10, num_batches=end - first)
        assert (batch.images.dtype, batch.labels.dtype) == (np.uint8, np.int32)
        assert batch.images.shape == (end - first, 4 * steps, 2, 2, 3)
        np.testing.assert_array_equal(batch.images[..., 0, 0, 0], expected)
        np.testing.assert_array_equal(batch.labels, 9 - expected)


@pytest.mark.parametrize('placement', ['device', 'stream'])
def test_labels_are_only_loaded_on_request(placement):
    assert all(batch.labels is None for batch in call_batches(placement))
    with pytest.raises(UserError, match='numbered has no labels'):
        call_batches(placement, num_classes=0, conditional=True)

"""Ranges of splits, and test splits that are not disjoint from the training split."""

import pytest
import tensorflow_datasets as tfds

from dcgan_jax.data import image_source, sources, split_ranges
from dcgan_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    ('first', 'second', 'expected'),
    [
        ('train', 'test', False),
        ('all', 'test', True),
        ('train+test[:1]', 'test', True),
        ('train+test[:1]', 'test[1:]', False),
        ('train[:50%]', 'train[50%:]', False),
        ('train[:6]', 'train[5:]', True),
        ('train[-5:]', 'train[:-5]', False),
    ],
)
def test_overlapping_splits_are_recognized(first, second, expected):
    infos = {
        name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
        for name, size in (('train', 10), ('test', 4))
    }
    ranges = [split_ranges.parse(split, infos) for split in (first, second)]
    assert split_ranges.overlap(*ranges) == expected
    examples = [
        {(part.name, index) for part in parts for index in range(part.first, part.end)}
        for parts in ranges
    ]
    assert bool(examples[0] & examples[1]) == expected


@pytest.mark.parametrize('split', ['train[0:0]', 'train[50%:10%]', 'train+train[5:5]'])
def test_empty_splits_are_rejected(data_dir, split):
    with pytest.raises(UserError, match='has no images: use another split'):
        sources.open_source('tiny_images', split, str(data_dir))


def test_test_images_that_are_used_for_training_are_not_a_test_split(config, monkeypatch):
    monkeypatch.setattr(sources, 'open_all_classes', lambda config, split: {
        'test': tiny_source(split_ranges.SplitRange('test', 0, 4)),
        'train': tiny_source(split_ranges.SplitRange('train', 0, 10)),
        'all': tiny_source(
            split_ranges.SplitRange('train', 0, 10), split_ranges.SplitRange('test', 0, 4)
        ),
    }[split])  # fmt: skip
    for split, is_none in (('train', False), ('all', True)):
        config.data.split = split
        assert (sources.open_test_split(config) is None) == is_none


def tiny_source(*ranges):
    return image_source.ImageSource('x', 'x', (8, 8, 3), records=[], ranges=ranges)

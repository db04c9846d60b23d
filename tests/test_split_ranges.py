"""Ranges of splits, and test splits that are not disjoint from the training split."""

import pytest
import tensorflow_datasets as tfds

from dcgan_jax.data import image_source, sources, split_ranges
from dcgan_jax.runtime.errors import UserError
from tests import class_folders

INFOS = {
    name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
    for name, size in (('train', 10), ('test', 4))
}


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
    ranges = [split_ranges.parse(split, INFOS) for split in (first, second)]
    assert split_ranges.overlap(*ranges) == expected
    examples = [
        {(part.name, index) for part in parts for index in range(part.start, part.end)}
        for parts in ranges
    ]
    assert bool(examples[0] & examples[1]) == expected


@pytest.fixture(params=['folder', 'tiny_images'])
def name(request):
    return request.param


@pytest.fixture
def root(name, data_dir, tmp_path):
    """Folder of a data set of 24 or 40 images."""
    if name == 'tiny_images':
        return data_dir
    for color in class_folders.COLORS:
        class_folders.write_images(tmp_path / color, class_folders.COLORS[color])
    return tmp_path


@pytest.mark.parametrize('split', ['train[0:0]', 'train[5:5]+train[6:6]'])
def test_empty_splits_are_rejected(name, root, split):
    with pytest.raises(UserError, match='has no images: use another split'):
        sources.open_source(name, split, str(root))


@pytest.mark.parametrize('split', ['train[50%:10%]', 'train[10:5]+train[:8]'])
def test_reversed_ranges_are_rejected(name, root, split):
    with pytest.raises(UserError, match='a range ends before it starts'):
        sources.open_source(name, split, str(root))


def test_unions_with_an_empty_range_are_accepted(name, root):
    assert len(sources.open_source(name, 'train[:4]+train[5:5]', str(root))) == 4


def test_repeated_examples_are_recognized():
    train = split_ranges.SplitRange('train', 0, 10)
    assert split_ranges.has_duplicates([train, train])
    assert not split_ranges.has_duplicates([train, split_ranges.SplitRange('train', 10, 12)])


@pytest.mark.parametrize(
    ('split', 'is_none'),
    [('train', False), ('all', True), ('train+test[:1]', True), ('test', True)],
)
def test_split_that_is_used_for_training_is_not_a_test_split(config, monkeypatch, split, is_none):
    def open_all_classes(config, split):
        ranges = split_ranges.parse(split, INFOS)
        return image_source.ImageSource('x', split, (8, 8, 3), records=[], ranges=ranges)

    monkeypatch.setattr(sources, 'open_all_classes', open_all_classes)
    config.data.split = split
    assert (sources.open_test_split(config) is None) == is_none

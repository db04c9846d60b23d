"""Classes by name."""

import numpy as np
import pytest
from PIL import Image

from dcgan_jax import training
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks.sample import grid_columns, sample


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    from tests.conftest import tiny_config
    from tests.tiny import prepare_tiny

    data_dir = tmp_path_factory.mktemp('fruit')
    prepare_tiny(data_dir, [(8, 8, 3)], label=lambda i: i % 4)
    config = tiny_config(data_dir)
    config.dataset, config.conditional, config.num_steps = 'tiny', True, 2
    folder = tmp_path_factory.mktemp('run')
    training.train_and_evaluate(config, folder)
    return folder


def labels(out):
    with np.load(out / 'samples.npz', allow_pickle=False) as arrays:
        return arrays['labels'].tolist()


@pytest.mark.parametrize(
    ('classes', 'expected'),
    [
        (None, [0, 1, 2, 3, 0]),
        (['can', 'apple'], [2, 0, 2, 0, 2]),
        (['3'], [3] * 5),
    ],
)
def test_classes_are_drawn_in_turn(workdir, tmp_path, classes, expected):
    sample(workdir, tmp_path, 5, 0, classes=classes)
    assert labels(tmp_path) == expected


def test_each_column_is_of_one_class(workdir, tmp_path):
    path = sample(workdir, tmp_path, 10, 0, classes=['can', 'apple'])
    with Image.open(path) as picture:
        assert picture.width == 4 * 10 + 2  # near the root of ten, and even
    assert grid_columns(100, 3) == 9
    assert grid_columns(5, 10) == 10
    assert grid_columns(100, 1) is None
    assert grid_columns(100, 1000) is None


def test_unknown_classes_are_refused(workdir, tmp_path):
    with pytest.raises(UserError, match=r"'aple' .*apple"):
        sample(workdir, tmp_path / 'out', 5, 0, classes=['aple'])
    assert not (tmp_path / 'out').exists()


def test_no_classes_are_refused(workdir, tmp_path):
    with pytest.raises(UserError, match='--classes is empty'):
        sample(workdir, tmp_path / 'out', 5, 0, classes=[])


def test_classes_that_were_not_learnt_are_neither_drawn_nor_asked_for(config, tmp_path):
    config.conditional, config.data.classes, config.num_steps = True, (2, 1), 2
    training.train_and_evaluate(config, tmp_path)
    sample(tmp_path, tmp_path / 'out', 5, 0)
    assert labels(tmp_path / 'out') == [1, 2, 1, 2, 1]
    sample(tmp_path, tmp_path / 'two', 2, 0, classes=['2'])
    assert labels(tmp_path / 'two') == [2, 2]
    with pytest.raises(UserError, match=r"'0'.*\(2, 1\)"):
        sample(tmp_path, tmp_path / 'other', 5, 0, classes=['0'])


def test_a_run_without_classes_has_none(config, tmp_path):
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match='--classes'):
        sample(tmp_path, tmp_path / 'out', 5, 0, classes=['1'])

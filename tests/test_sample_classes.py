"""Selection of classes for training and sampling."""

import numpy as np
import pytest
from PIL import Image

from dcgan_jax import run_dir, training
from dcgan_jax.data import classes
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import sample
from dcgan_jax.tasks.options import TaskOptions


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
def test_samples_cycle_through_the_classes(workdir, tmp_path, classes, expected):
    sample.run(TaskOptions(workdir=workdir, out=tmp_path, num=5, classes=classes))
    assert labels(tmp_path) == expected


def test_each_column_of_the_grid_has_one_class(workdir, tmp_path):
    path = sample.run(
        TaskOptions(workdir=workdir, out=tmp_path, num=10, classes=['can', 'apple'])
    ).path
    with Image.open(path) as picture:
        # The number of columns is a multiple of the number of classes near the square root of 10.
        assert picture.width == 4 * 10 + 2
    assert sample.grid_columns(100, 3) == 9
    assert sample.grid_columns(5, 10) == 10
    assert sample.grid_columns(100, 1) is None
    assert sample.grid_columns(100, 1000) is None


def test_unknown_classes_are_rejected(workdir, tmp_path):
    with pytest.raises(UserError, match=r"'aple' .*apple"):
        sample.run(TaskOptions(workdir=workdir, out=tmp_path / 'out', num=5, classes=['aple']))
    assert not (tmp_path / 'out').exists()


def test_empty_classes_are_rejected(workdir, tmp_path):
    with pytest.raises(UserError, match='--classes is empty'):
        sample.run(TaskOptions(workdir=workdir, out=tmp_path / 'out', num=5, classes=[]))


def test_only_trained_classes_are_sampled(config, tmp_path):
    config.conditional, config.data.classes, config.num_steps = True, (2, 1), 2
    training.train_and_evaluate(config, tmp_path)
    sample.run(TaskOptions(workdir=tmp_path, out=tmp_path / 'out', num=5))
    assert labels(tmp_path / 'out') == [1, 2, 1, 2, 1]
    sample.run(TaskOptions(workdir=tmp_path, out=tmp_path / 'two', num=2, classes=['2']))
    assert labels(tmp_path / 'two') == [2, 2]
    with pytest.raises(UserError, match=r"'0', only on 1 \(1\), 2 \(2\)"):
        sample.run(TaskOptions(workdir=tmp_path, out=tmp_path / 'other', num=5, classes=['0']))


def test_classes_of_an_unconditional_run_are_rejected(config, tmp_path):
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match='--classes'):
        sample.run(TaskOptions(workdir=tmp_path, out=tmp_path / 'out', num=5, classes=['1']))


@pytest.fixture
def numbered(tmp_path):
    """A folder with the classes 1, 2 and 10."""
    for name in ('1', '2', '10'):
        for index in range(3):
            path = tmp_path / 'set' / name / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (8, 8), (int(name) * 20, index, 0)).save(path)
    return tmp_path / 'set'


def folder_config(folder, classes=()):
    from tests.conftest import tiny_config

    config = tiny_config(folder)
    config.dataset, config.conditional, config.num_steps = 'folder', True, 1
    config.data.classes = classes
    return config


def test_classes_are_selected_by_name_and_stored_by_index(numbered, tmp_path, caplog):
    caplog.set_level('INFO')
    config = folder_config(numbered, ('10', '2'))
    training.train_and_evaluate(config, tmp_path / 'run')
    assert '6 images of the classes 10 (2), 2 (1)' in caplog.text
    assert run_dir.read(tmp_path / 'run').config.data.classes == (2, 1)
    assert config.data.classes == ('10', '2')
    training.train_and_evaluate(config, tmp_path / 'run')  # Resumes.
    sample.run(TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=4))
    assert labels(tmp_path / 'out') == [1, 2, 1, 2]
    sample.run(TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=4, classes=['2']))
    assert labels(tmp_path / 'out') == [1] * 4, 'The name 2 precedes the index 2.'
    assert '--classes: 2 (1)' in caplog.text


def test_names_precede_indices_and_integers_are_indices():
    names = ('1', '2', '10')
    assert classes.find_classes('x', ('10', '1', '0', 0, 2), names) == (2, 0, 0, 0, 2)
    for unknown in (('cat',), (3,), ('9' * 5000,), (10,), ('01',), ('１',)):
        with pytest.raises(UserError, match=r'x: .* is unknown.*1 \(0\), 2 \(1\), 10 \(2\)'):
            classes.find_classes('x', unknown, names)
    with pytest.raises(UserError, match=r"Write several classes as \('1', '2'\)"):
        classes.find_classes('x', ('1,2',), names)


def test_index_that_is_the_name_of_another_class_is_rejected(numbered, tmp_path):
    config = folder_config(numbered, (1,))
    with pytest.raises(UserError, match=r"1 is both a name and the index .*\('1',\)"):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_image_outside_of_class_folders_is_named_if_labels_are_needed(numbered, tmp_path):
    Image.new('RGB', (8, 8)).save(numbered / 'stray.png')
    for selected, remedy in ((), 'config.conditional=False'), ((0,), 'conditional=False'):
        with pytest.raises(UserError, match=rf'stray\.png is not in a class folder.*{remedy}'):
            training.prepare(folder_config(numbered, selected), tmp_path / 'run')
    config = folder_config(numbered, ('1',))
    config.conditional = False
    with pytest.raises(UserError, match=r"stray\.png is not .*remove config\.data\.classes=\('1',"):
        training.prepare(config, tmp_path / 'run')


def test_conditional_run_with_an_empty_class_is_rejected(numbered, tmp_path):
    for path in list((numbered / '10').iterdir())[1:]:
        path.unlink()
    config = folder_config(numbered)
    config.data.split = 'train[:2]'
    with pytest.raises(UserError, match=r'has no images of 10 \(2\)'):
        training.prepare(config, tmp_path / 'run')
    config.data.classes = ('1', '2')
    assert len(training.prepare(config, tmp_path / 'run').source) == 2
    config.data.classes, config.conditional = (), False
    training.prepare(config, tmp_path / 'run')


def test_unusual_class_names_can_be_trained_and_sampled(tmp_path):
    names = ['ü ber', '日本', "it's", 'a,b', '-x', '{}', '"', '%s', '👩\u200d🚀', '1.0']
    for name in names:
        (tmp_path / 'set' / name).mkdir(parents=True)
        Image.new('RGB', (8, 8)).save(tmp_path / 'set' / name / 'x\udce9\n.png')
    training.train_and_evaluate(folder_config(tmp_path / 'set'), tmp_path / 'run')
    stored = run_dir.read(tmp_path / 'run').class_names
    assert set(stored) == set(names)
    sample.run(
        TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=len(names), classes=names)
    )
    assert [stored[label] for label in labels(tmp_path / 'out')] == names

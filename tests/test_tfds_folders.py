"""Folders of TFDS data sets that contain other files, and outputs in these folders."""

import shutil

import pytest

from dcgan_jax import training
from dcgan_jax.data import sources, tfds_data
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks import sample
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config
from tests.class_folders import content
from tests.tiny import prepare_tiny


@pytest.fixture
def root(tmp_path):
    """Folder with version 1.2.0 of the data set `tiny`."""
    prepare_tiny(tmp_path, [(6, 6, 1)])
    return tmp_path


def write_run(folder):
    """Write some files of a run."""
    (folder / 'samples').mkdir(parents=True)
    (folder / 'config.json').write_text('{}')


@pytest.mark.parametrize('name', ['tiny', 'tiny:1.*.*'])
def test_other_version_folders_do_not_hide_the_data_set(root, name, caplog):
    before = sources.open_source(name, 'train', str(root)).digest
    (root / 'tiny' / '1.3.0').mkdir()
    write_run(root / 'tiny' / '1.4.0')
    write_run(root / 'tiny' / '2.0.0')
    source = sources.open_source(name, 'train', str(root))
    assert (source.name, len(source), source.digest) == ('tiny/1.2.0', 10, before)
    assert f'no data set in {root}/tiny/' in caplog.text


def test_versions_of_a_configuration_are_found(root):
    (root / 'tiny').rename(root / 'small')
    (root / 'tiny').mkdir()
    (root / 'small').rename(root / 'tiny' / 'small')
    write_run(root / 'tiny' / 'small' / '2.0.0')
    assert len(sources.open_source('tiny/small', 'train', str(root))) == 10


def test_folders_in_the_data_set_are_not_part_of_its_digest(root):
    before = sources.open_source('tiny', 'train', str(root)).digest
    write_run(root / 'tiny' / '1.2.0' / 'out')
    assert sources.open_source('tiny', 'train', str(root)).digest == before


@pytest.mark.parametrize(
    ('name', 'version'), [('shapes', '1.0.0'), ('shapes:2.0.0', '2.0.0'), ('tiny', '3.0.0')]
)
def test_error_names_the_version_without_a_data_set(tmp_path, name, version):
    base = tfds_data._base_name(name)
    write_run(tmp_path / base / version)
    (tmp_path / base / '0.1.0').mkdir()
    with pytest.raises(UserError, match=rf'{base}/{version} contains no complete data set: move'):
        sources.open_source(name, 'train', str(tmp_path))


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
def test_error_names_the_version_that_is_damaged(root, name):
    shutil.copytree(root / 'tiny' / '1.2.0', root / 'tiny' / '2.0.0')
    (root / 'tiny' / '2.0.0' / name).write_text('{"a')
    with pytest.raises(UserError, match=r'tiny/2\.0\.0 cannot be opened'):
        sources.open_source('tiny', 'train', str(root))


@pytest.mark.parametrize('version', ['latest', '1', '1.x.0'])
def test_invalid_versions_are_rejected_in_one_line(root, version):
    with pytest.raises(UserError, match=f'tiny:{version}'):
        sources.open_source(f'tiny:{version}', 'train', str(root))


@pytest.mark.parametrize('version', ['1.0.0', '2.0.0', '1.0.0/out', '.'])
def test_outputs_in_the_folder_of_the_data_set_are_rejected(
    finished, config, data_dir, tmp_path, version
):
    out = data_dir / 'tiny_images' / version
    before = content(data_dir)
    with pytest.raises(UserError, match=r'--workdir=.* among the files of config\.data_dir'):
        training.train_and_evaluate(config, out)
    with pytest.raises(UserError, match=r'--out=.* among the files of config\.data_dir'):
        sample.run(TaskOptions(workdir=finished[0], out=out, num=1))
    shutil.copytree(data_dir, tmp_path / 'copy')
    config.data_dir = str(tmp_path / 'copy')
    copied = tmp_path / 'copy' / 'tiny_images' / version
    with pytest.raises(UserError, match=r'--out=.* among the files of --config\.data_dir'):
        sample.run(TaskOptions(workdir=finished[0], config=config, out=copied, num=1))
    assert content(data_dir) == before


def test_names_in_camel_case_are_those_of_the_same_folder(root, config):
    write_run(root / 'tiny' / '2.0.0')
    assert sources.open_source('Tiny', 'train', str(root)).name == 'tiny/1.2.0'
    config.dataset, config.data_dir = 'Tiny', str(root)
    with pytest.raises(UserError, match=r'--workdir=.* among the files of config\.data_dir'):
        training.train_and_evaluate(config, root / 'tiny' / 'run')


def test_outputs_in_the_folder_of_a_data_set_that_is_not_prepared_are_rejected(config, tmp_path):
    config.dataset, config.data_dir = 'shapes', str(tmp_path)
    with pytest.raises(UserError, match=r'among the files of config\.data_dir'):
        training.train_and_evaluate(config, tmp_path / 'shapes' / '2.0.0')
    assert not list(tmp_path.iterdir())


def test_workdir_beside_the_data_sets_is_accepted(data_dir, config, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    config.data_dir, config.num_steps = str(tmp_path), 0
    training.train_and_evaluate(config, tmp_path)
    sample.run(TaskOptions(workdir=tmp_path, out=tmp_path / 'shapes' / 'out', num=1))


@pytest.mark.parametrize('name', ['a.PNG', 'cats/a.jpg'])
def test_data_sets_are_not_prepared_among_images(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b'')
    before = content(tmp_path)
    with pytest.raises(UserError, match=r'contains images \(a\..*use another folder'):
        sources.open_source('shapes', 'train', str(tmp_path))
    assert content(tmp_path) == before


def test_folder_of_images_is_not_the_data_directory_of_a_run(config):
    given = config.copy_and_resolve_references()
    given.dataset, given.data_dir = 'folder', '/images'
    with pytest.raises(
        UserError, match=r'dataset=folder: the run was trained on the data set tiny'
    ):
        merge_config(config, given)

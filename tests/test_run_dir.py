"""Run directories: order of writes, identity of the data, lost files, and warm starts."""

import concurrent.futures
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import dcgan_jax
from dcgan_jax import run_dir, sample_grids, training
from dcgan_jax.data import sources
from dcgan_jax.runtime import cache_dir, containment
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.tasks import evaluate, sample, trained_run
from dcgan_jax.tasks.options import TaskOptions
from tests.compare import assert_equal_states
from tests.conftest import tiny_config

COLORS = {'blue': (0, 0, 255), 'green': (0, 255, 0), 'red': (255, 0, 0)}


def write_images(folder, color, num=8):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        Image.new('RGB', (8, 8), (*color[:2], max(color[2], index))).save(folder / f'{index}.png')


def folder_config(root):
    config = tiny_config(root)
    config.dataset, config.num_steps, config.conditional = 'folder', 2, True
    config.sample_every = config.evaluation.every = 0
    return config


def content(root):
    """Return the bytes of all files by name."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(folder of images, workdir): three class folders and a conditional run of two steps."""
    root = tmp_path_factory.mktemp('folder_run')
    for name, color in COLORS.items():
        write_images(root / 'images' / name, color)
    training.train_and_evaluate(folder_config(root / 'images'), root / 'run')
    return root / 'images', root / 'run'


@pytest.fixture
def copied(trained, tmp_path):
    """Copies of the folders of `trained`, at another path."""
    return tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in trained)


def test_rejected_resume_changes_no_file(copied):
    images, run = copied
    write_images(images / 'yellow', (255, 255, 0), num=1)
    before = content(run)
    config = folder_config(images)
    config.num_steps = 4
    with pytest.raises(UserError, match=r'blue, green, red, yellow.*trained on blue, green, red'):
        training.train_and_evaluate(config, run)
    assert content(run) == before
    assert len(dcgan_jax.load(run).sample(3)) == 3


def test_rejected_checkpoint_leaves_the_config_unchanged(copied):
    """The arrays of the checkpoint do not fit the config, which is detected while restoring."""
    images, run = copied
    description = json.loads((run / 'config.json').read_text())
    description['config']['latent_dim'] = 7
    (run / 'config.json').write_text(json.dumps(description))
    for path in (run / 'checkpoints').glob('*/metadata'):
        shutil.rmtree(path)  # Its description would be compared first.
    before = content(run)
    config = folder_config(images)
    config.latent_dim, config.num_steps = 7, 4
    with pytest.raises(UserError, match='a different architecture'):
        training.train_and_evaluate(config, run)
    assert content(run) == before


@pytest.mark.parametrize('content', ['{}', '[]', 'null', '{"config": {}}', '{'])
def test_damaged_description_is_rejected_in_one_line(finished_copy, content):
    (finished_copy / 'config.json').write_text(content)
    with pytest.raises(UserError, match='is damaged or was written by another version') as error:
        run_dir.read(finished_copy)
    assert '\n' not in str(error.value)


def test_description_that_differs_from_the_last_checkpoint_is_rejected(copied):
    _, run = copied
    path = run / 'config.json'
    original = json.loads(path.read_text())
    changed = json.loads(path.read_text())
    changed['config']['generator']['activation'] = 'leaky_relu'
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r'last checkpoint \(generator.activation: .relu'):
        dcgan_jax.load(run)
    path.write_text(json.dumps(original | {'class_names': ['red', 'green', 'blue']}))
    with pytest.raises(UserError, match=r'classes: blue, green, red -> red, green, blue'):
        dcgan_jax.load(run)
    path.write_text(json.dumps(original | {'data': original['data'] | {'digest': 'other'}}))
    with pytest.raises(UserError, match=r'data: .*digest'):
        dcgan_jax.load(run)
    path.unlink()
    assert len(dcgan_jax.load(run).sample(3)) == 3


def test_paths_are_stored_as_absolute_paths(config, data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(data_dir.parent)
    config.data_dir, config.num_steps = data_dir.name, 0
    config.evaluation.extractor, config.evaluation.reference = 'a.jaxexport', 'b.npz'
    training.train_and_evaluate(config, tmp_path / 'run')
    stored = run_dir.read(tmp_path / 'run').config
    assert stored.data_dir == str(data_dir)
    assert stored.evaluation.extractor == str(data_dir.parent / 'a.jaxexport')
    assert stored.evaluation.reference == str(data_dir.parent / 'b.npz')
    assert config.data_dir == data_dir.name


def test_renamed_classes_are_rejected_by_name(copied):
    images, run = copied
    (images / 'green').rename(images / 'zebra')  # 'zebra' would have the label of 'red'.
    with pytest.raises(UserError, match=r'the classes blue, red, zebra.*trained on blue, green'):
        training.train_and_evaluate(folder_config(images), run)
    with pytest.raises(UserError, match='trained on blue, green, red'):
        trained_run.open_split(run_dir.read(run), folder_config(images), 'train')


@pytest.mark.parametrize('conditional', [True, False])
def test_exchanged_class_folders_are_rejected_if_classes_are_used(tmp_path, caplog, conditional):
    """The names and the sizes of all files stay the same."""
    for name, color in COLORS.items():
        (tmp_path / name).mkdir()
        Image.new('RGB', (8, 8), color).save(tmp_path / name / 'a.bmp')
    config = folder_config(tmp_path)
    config.conditional = conditional
    first = sources.open_split(config, 'train')
    described = run_dir.Run(config, first.image_shape, first.class_names, first.identity)
    for old, new in (('blue', 'x'), ('green', 'blue'), ('x', 'green')):
        (tmp_path / old).rename(tmp_path / new)
    if conditional:
        with pytest.raises(UserError, match=r'folder blue contains the images.*trained as green'):
            trained_run.open_split(described, config, 'train')
    else:
        with caplog.at_level(logging.WARNING, 'absl'):
            trained_run.open_split(described, config, 'train')
        assert 'the data set has changed since the run started (contents)' in caplog.text


def test_changed_images_log_a_warning_and_copied_images_do_not(copied, caplog):
    images, run = copied
    description = run_dir.read(run)
    with caplog.at_level(logging.WARNING, 'absl'):
        trained_run.open_split(description, folder_config(images), 'train')
        assert 'has changed' not in caplog.text
        write_images(images / 'red', COLORS['red'], num=9)
        trained_run.open_split(description, folder_config(images), 'train')
    assert 'the data set has changed since the run started (images: 24 -> 25' in caplog.text


def test_tfds_data_sets_are_identified_by_version_and_sizes(data_dir):
    source = sources.open_source('tiny_images', 'train[:5]', str(data_dir))
    assert source.identity == {'name': 'tiny_images/1.0.0', 'images_in_train': 40} | {
        key: value for key, value in source.identity.items() if key.startswith('images_in_')
    }
    assert source.digest == sources.open_source('tiny_images', 'train', str(data_dir)).digest


@pytest.mark.slow
def test_run_without_config_file_is_resumed_from_the_checkpoint(copied):
    images, run = copied
    pixels = dcgan_jax.load(run).sample(3)
    (run / 'config.json').unlink()
    np.testing.assert_array_equal(dcgan_jax.load(run).sample(3), pixels)
    config = folder_config(images)
    config.batch_size = 4
    with pytest.raises(UserError, match=r'a different config.*batch_size: 8 -> 4'):
        training.train_and_evaluate(config, run)
    config.batch_size, config.num_steps = 8, 3
    assert int(training.train_and_evaluate(config, run).step) == 3
    assert run_dir.read(run).config.num_steps == 3


def test_run_whose_workdir_is_removed_ends_with_an_error(tmp_path, trained, monkeypatch):
    config = folder_config(trained[0])
    config.num_steps, config.log_every = 6, 1
    draw = sample_grids.SampleGrids.write

    def draw_and_remove(self, state):
        draw(self, state)
        shutil.rmtree(tmp_path / 'run')

    monkeypatch.setattr(sample_grids.SampleGrids, 'write', draw_and_remove)
    config.sample_every = 2
    with pytest.raises(TrainingError, match='was removed'):
        training.train_and_evaluate(config, tmp_path / 'run')


@pytest.mark.slow
def test_runs_in_threads_equal_single_runs(trained, tmp_path):
    images, _ = trained

    def train(seed, name):
        config = folder_config(images)
        config.seed = seed
        return training.train_and_evaluate(config, tmp_path / name)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        states = list(pool.map(train, (0, 1), ('a', 'b')))
    for seed, state in enumerate(states):
        assert_equal_states(state, train(seed, f'single_{seed}'))
    with run_dir.lock(epath.Path(tmp_path / 'a')), pytest.raises(UserError, match='in use'):
        train(0, 'a')


def test_user_without_a_home_folder_has_temporary_caches(monkeypatch, caplog):
    monkeypatch.delenv('DCGAN_JAX_CACHE', raising=False)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)  # As for an unknown user.
    with caplog.at_level(logging.WARNING, 'absl'):
        folders = cache_dir.folder(), cache_dir.home_folder('tensorflow_datasets')
    assert all(folder.is_relative_to(tempfile.gettempdir()) for folder in folders)


def test_systems_without_file_locks_are_rejected_in_one_line(tmp_path):
    script = 'import sys; sys.modules["fcntl"] = None\nfrom dcgan_jax import cli; cli.run()'
    flags = '--config=configs/quickstart.py', f'--workdir={tmp_path}'
    done = subprocess.run(
        [sys.executable, '-c', script, *flags], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('error: Windows is not supported')


@pytest.mark.parametrize('name', ['run', '', 'a/b'])
def test_workdir_inside_the_training_images_is_rejected(trained, name):
    images, _ = trained
    before = content(images)
    with pytest.raises(
        UserError, match=r'--workdir=.* would be read as images of config\.data_dir'
    ):
        training.train_and_evaluate(folder_config(images), images / name)
    assert content(images) == before


def test_output_folder_linked_into_the_images_is_rejected(trained, tmp_path):
    images, run = trained
    (tmp_path / 'link').symlink_to(images)
    with pytest.raises(UserError, match=r'--out=.* would be read as images of config\.data_dir'):
        sample.run(TaskOptions(workdir=run, out=tmp_path / 'link' / 'out', num=1))
    (tmp_path / 'own').mkdir()
    write_images(tmp_path / 'own', COLORS['red'], num=2)
    (tmp_path / 'own' / 'run').symlink_to(run)
    with pytest.raises(UserError, match=r'--out=.* would be read as images of --images'):
        evaluate.run(
            TaskOptions(workdir=run, images=tmp_path / 'own', out=tmp_path / 'own' / 'results')
        )


def test_output_folder_outside_of_the_images_is_accepted(tmp_path):
    (tmp_path / 'images').mkdir()
    inputs = {'--images': tmp_path / 'images', 'config.data_dir': ''}
    containment.check_outside(tmp_path / 'images_2', '--out', inputs)
    containment.check_outside('gs://bucket/run', '--workdir', {'config.data_dir': '.'})
    with pytest.raises(UserError, match='read as images of --images'):
        containment.check_outside(tmp_path / 'images', '--out', inputs)


def link_inside(root):
    """Return (images, workdir), where images contain a link to the parent of the workdir."""
    (root / 'images' / 'link').symlink_to(root / 'elsewhere')
    return root / 'images', root / 'elsewhere' / 'run'


def samples_folder(root):
    return root / 'elsewhere' / 'samples', root / 'elsewhere'


def below_checkpoints(root):
    return root / 'elsewhere' / 'checkpoints' / 'images', root / 'elsewhere'


def linked_samples(root):
    (root / 'elsewhere' / 'samples').symlink_to(root / 'images')
    return root / 'images', root / 'elsewhere'


@pytest.mark.parametrize('create', [link_inside, samples_folder, below_checkpoints, linked_samples])
def test_folders_of_a_run_that_would_be_read_as_images_are_rejected(tmp_path, create):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    images, workdir = create(tmp_path)
    images.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match='read as images'):
        containment.check_outside(workdir, '--workdir', {'--images': images}, run_dir.FOLDERS)


def test_images_in_another_subfolder_of_the_workdir_are_accepted(tmp_path):
    (tmp_path / 'run' / 'images' / 'loop').mkdir(parents=True)
    (tmp_path / 'run' / 'images' / 'loop' / 'up').symlink_to(tmp_path / 'run' / 'images')
    inputs = {'config.data_dir': tmp_path / 'run' / 'images'}
    containment.check_outside(tmp_path / 'run', '--workdir', inputs, run_dir.FOLDERS)


@pytest.mark.parametrize('name', ['a\\b', 'gs:/run'])
def test_workdirs_that_orbax_would_write_elsewhere_are_rejected(trained, tmp_path, name):
    with pytest.raises(UserError, match='backslash or ends in a colon'):
        training.train_and_evaluate(folder_config(trained[0]), f'{tmp_path}/{name}')
    assert list(tmp_path.iterdir()) == []


def test_resume_with_a_corrupt_image_changes_no_file(copied):
    images, run = copied
    path = images / 'red' / '3.png'
    path.write_bytes(path.read_bytes()[:45])
    before = content(run)
    config = folder_config(images)
    config.num_steps = 4
    with pytest.raises(UserError, match='corrupt'):
        training.train_and_evaluate(config, run)
    assert content(run) == before


@pytest.mark.slow
def test_data_identity_of_the_start_is_kept(copied, caplog):
    images, run = copied
    config = folder_config(images)
    first = run_dir.read(run).data
    write_images(images / 'red', COLORS['red'], num=9)
    for num_steps in (3, 4):
        config.num_steps = num_steps
        caplog.clear()
        with caplog.at_level(logging.WARNING, 'absl'):
            training.train_and_evaluate(config, run)
        assert 'images: 24 -> 25' in caplog.text
    assert run_dir.read(run).data == first


def test_init_from_copies_the_networks(trained, tmp_path):
    images, run = trained
    source = dcgan_jax.load(run).state
    config = folder_config(images)
    config.init_from, config.num_steps = str(run), 0
    config.optimizer.generator.learning_rate, config.batch_size = 1e-5, 4
    state = training.train_and_evaluate(config, tmp_path / 'new')
    assert int(state.step) == 0
    assert_equal_states(state.generator.params, source.generator.params)
    assert_equal_states(state.generator.batch_stats, source.generator.batch_stats)
    assert_equal_states(state.discriminator.params, source.discriminator.params)
    assert_equal_states(state.ema_params, source.ema_params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state.generator.opt_state))
    assert run_dir.read(tmp_path / 'new').config.init_from == str(run)


@pytest.mark.slow
def test_init_optimizer_copies_moments_and_restarts_schedules(trained, tmp_path):
    images, run = trained
    source = dcgan_jax.load(run).state
    config = folder_config(images)
    config.init_from, config.init_optimizer, config.num_steps = str(run), True, 0
    config.optimizer.generator.update(schedule='linear', decay_start=1, decay_end=9)
    state = training.train_and_evaluate(config, tmp_path / 'new')
    adam, schedule = state.generator.opt_state
    assert_equal_states(adam, source.generator.opt_state[0])
    assert int(adam.count) == 2
    assert int(schedule.count) == 0
    config.optimizer.generator.name = 'sgd'
    with pytest.raises(UserError, match='a different optimizer of the generator'):
        training.train_and_evaluate(config, tmp_path / 'other')


def test_init_from_initializes_averaged_statistics(trained, tmp_path):
    images, run = trained
    config = folder_config(images)
    config.init_from, config.ema.batch_stats, config.num_steps = str(run), 'average', 1
    assert int(training.train_and_evaluate(config, tmp_path / 'new').step) == 1


def test_run_without_steps_has_a_checkpoint(trained, tmp_path, monkeypatch):
    images, run = trained
    monkeypatch.chdir(run.parent)
    config = folder_config(images)
    config.init_from, config.num_steps = run.name, 0
    training.train_and_evaluate(config, tmp_path / 'new')
    pixels = dcgan_jax.load(tmp_path / 'new').sample(3)
    np.testing.assert_array_equal(pixels, dcgan_jax.load(run).sample(3))
    assert run_dir.read(tmp_path / 'new').config.init_from == str(run)


def test_initialization_from_networks_of_other_classes_is_rejected(copied, tmp_path):
    images, run = copied
    (images / 'green').rename(images / 'zebra')
    config = folder_config(images)
    config.init_from = str(run)
    with pytest.raises(UserError, match=r'was trained on the classes blue, green, red'):
        training.train_and_evaluate(config, tmp_path / 'new')
    assert not epath.Path(tmp_path / 'new').exists()


def test_initialization_from_another_architecture_is_rejected(trained, tmp_path):
    images, run = trained
    config = folder_config(images)
    config.init_from, config.discriminator.use_bias = str(run), not config.discriminator.use_bias
    with pytest.raises(UserError, match=r'a different discriminator: params/.*bias'):
        training.train_and_evaluate(config, tmp_path / 'new')
    assert not epath.Path(tmp_path / 'new').exists()
    config.init_from = str(tmp_path)
    with pytest.raises(UserError, match='contains no run'):
        training.train_and_evaluate(config, tmp_path / 'new')

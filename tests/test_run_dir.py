"""Run directories: order of writes, identity of the data, lost files, and warm starts."""

import concurrent.futures
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image

import dcgan_jax
from dcgan_jax import run_dir, sample_grids, training
from dcgan_jax.data import identity, sources
from dcgan_jax.runtime import cache_dir, workdir_guard
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.tasks import trained_run
from tests.class_folders import COLORS, content, folder_config, write_images
from tests.compare import assert_equal_states


def test_rejected_resume_changes_no_file(class_folder_copy):
    images, run = class_folder_copy
    write_images(images / 'yellow', (255, 255, 0), num=1)
    before = content(run)
    config = folder_config(images)
    config.num_steps = 4
    with pytest.raises(UserError, match=r'blue, green, red, yellow.*trained on blue, green, red'):
        training.train_and_evaluate(config, run)
    assert content(run) == before
    assert len(dcgan_jax.load(run).sample(3)) == 3


def test_pipe_in_place_of_the_config_is_rejected(tmp_path):
    os.mkfifo(tmp_path / 'config.json')
    with pytest.raises(UserError, match='a pipe, socket or device'):
        run_dir.read(tmp_path)


def test_rejected_checkpoint_leaves_the_config_unchanged(class_folder_copy):
    """The arrays of the checkpoint do not fit the config, which is detected while restoring."""
    images, run = class_folder_copy
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


def test_description_that_differs_from_the_last_checkpoint_is_rejected(class_folder_copy):
    _, run = class_folder_copy
    path = run / 'config.json'
    original = json.loads(path.read_text())
    changed = json.loads(path.read_text())
    changed['config']['generator']['activation'] = 'leaky_relu'
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r'checkpoint .*\(generator.activation: .relu'):
        dcgan_jax.load(run)
    path.write_text(json.dumps(original | {'class_names': ['red', 'green', 'blue']}))
    with pytest.raises(UserError, match=r'classes: blue, green, red -> red, green, blue'):
        dcgan_jax.load(run)
    path.write_text(json.dumps(original | {'data': original['data'] | {'digest': 'other'}}))
    with pytest.raises(UserError, match=r'data: .*digest'):
        dcgan_jax.load(run)
    path.unlink()
    assert len(dcgan_jax.load(run).sample(3)) == 3


def test_run_that_lacks_a_new_field_is_used_with_a_warning(finished, finished_copy, caplog):
    path = finished_copy / 'config.json'
    content = json.loads(path.read_text())
    del content['config']['loss']['label_smoothing'], content['config']['distill']
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING, 'absl'):
        samples = dcgan_jax.load(finished_copy).sample(3)
    assert 'before these fields were added' in caplog.text
    assert 'loss.label_smoothing, distill.teacher, distill.init' in caplog.text
    np.testing.assert_array_equal(samples, dcgan_jax.load(finished[0]).sample(3))


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


def test_renamed_classes_are_rejected_by_name(class_folder_copy):
    images, run = class_folder_copy
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


def test_unconditional_run_is_resumed_with_another_class_folder(class_folder_copy, tmp_path):
    images, _ = class_folder_copy
    config = folder_config(images)
    config.conditional = False
    training.train_and_evaluate(config, tmp_path / 'unconditional')
    write_images(images / 'yellow', (255, 255, 0))
    for num_steps in (4, 6):
        config.num_steps = num_steps
        assert (
            int(training.train_and_evaluate(config, tmp_path / 'unconditional').step) == num_steps
        )


def test_changed_images_log_a_warning_and_copied_images_do_not(class_folder_copy, caplog):
    images, run = class_folder_copy
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
def test_run_without_config_file_is_resumed_from_the_checkpoint(class_folder_copy):
    images, run = class_folder_copy
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


def test_run_whose_workdir_is_removed_ends_with_an_error(tmp_path, class_folder_run, monkeypatch):
    """This is detected before the next hook, although neither metrics nor checkpoints are due."""
    config = folder_config(class_folder_run[0])
    config.num_steps, config.log_every = 8, 8
    config.checkpoint_every, config.sample_every = 4, 1
    draw = sample_grids.SampleGrids.write

    def draw_and_remove(self, state):
        draw(self, state)
        if int(state.step) == 5:
            # Wait until the checkpoint of step 4 is complete.
            deadline = time.monotonic() + 30
            while not (tmp_path / 'run' / 'checkpoints' / '4').exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            (tmp_path / 'run').rename(tmp_path / 'moved')

    monkeypatch.setattr(sample_grids.SampleGrids, 'write', draw_and_remove)
    with pytest.raises(TrainingError, match='was removed'):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('old', 'new', 'expected'),
    [
        ('A B C', 'B A C', 'folder a contains the images on which the run was trained as b'),
        ('A B C', 'A D C', ''),
        ('A - -', 'A - -', ''),
        ('A B -', 'A - -', ''),
        ('', 'A B C', ''),
    ],
)
def test_exchanged_classes_are_described(old, new, expected):
    found = identity.find_exchanged(('a', 'b', 'c'), {'contents': old}, {'contents': new})
    assert (expected in found) if expected else not found


@pytest.mark.slow
def test_runs_in_threads_equal_single_runs(class_folder_run, tmp_path):
    images, _ = class_folder_run

    def train(seed, name):
        config = folder_config(images)
        config.seed = seed
        return training.train_and_evaluate(config, tmp_path / name)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        states = list(pool.map(train, (0, 1), ('a', 'b')))
    for seed, state in enumerate(states):
        assert_equal_states(state, train(seed, f'single_{seed}'))
    with workdir_guard.lock(epath.Path(tmp_path / 'a')), pytest.raises(UserError, match='in use'):
        train(0, 'a')


def test_user_without_a_home_folder_has_temporary_caches(monkeypatch, caplog):
    monkeypatch.delenv('DCGAN_JAX_CACHE', raising=False)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)  # As for an unknown user.
    with caplog.at_level(logging.WARNING, 'absl'):
        folders = cache_dir.folder(), cache_dir.home_folder('tensorflow_datasets')
    assert all(folder.is_relative_to(tempfile.gettempdir()) for folder in folders)


def test_systems_without_file_locks_are_rejected_in_one_line(tmp_path):
    script = 'import sys; sys.modules["fcntl"] = None\nfrom dcgan_jax.__main__ import run; run()'
    flags = '--config=configs/quickstart.py', f'--workdir={tmp_path}'
    done = subprocess.run(
        [sys.executable, '-c', script, *flags], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('error: Windows is not supported')


@pytest.mark.parametrize('name', ['a\\b', 'gs:/run'])
def test_workdirs_that_orbax_would_write_elsewhere_are_rejected(class_folder_run, tmp_path, name):
    with pytest.raises(UserError, match='backslash or ends in a colon'):
        training.train_and_evaluate(folder_config(class_folder_run[0]), f'{tmp_path}/{name}')
    assert list(tmp_path.iterdir()) == []


def test_resume_with_a_corrupt_image_changes_no_file(class_folder_copy):
    """The damaged checkpoint is not moved either."""
    images, run = class_folder_copy
    config = folder_config(images)
    config.num_steps = 4
    training.train_and_evaluate(config, run)
    (run / 'checkpoints' / '4' / 'checksums' / 'metadata').write_text('{')
    path = images / 'red' / '3.png'
    path.write_bytes(path.read_bytes()[:45])
    before = content(run)
    config.num_steps = 6
    with pytest.raises(UserError, match='corrupt'):
        training.train_and_evaluate(config, run)
    assert content(run) == before


@pytest.mark.slow
def test_data_identity_of_the_start_is_kept(class_folder_copy, caplog):
    images, run = class_folder_copy
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


def test_copy_without_hidden_files_and_checkpoints_is_not_restarted(class_folder_run, tmp_path):
    images, run = class_folder_run
    (tmp_path / 'copy').mkdir()
    for path in run.glob('[!.]*'):
        if path.is_file():
            shutil.copy(path, tmp_path / 'copy')
    with pytest.raises(UserError, match='contains no checkpoints, although the run had saved'):
        training.train_and_evaluate(folder_config(images), tmp_path / 'copy')


def test_run_without_steps_has_a_checkpoint(class_folder_run, tmp_path, monkeypatch):
    images, run = class_folder_run
    monkeypatch.chdir(run.parent)
    config = folder_config(images)
    config.init_from, config.num_steps = run.name, 0
    training.train_and_evaluate(config, tmp_path / 'new')
    pixels = dcgan_jax.load(tmp_path / 'new').sample(3)
    np.testing.assert_array_equal(pixels, dcgan_jax.load(run).sample(3))
    assert run_dir.read(tmp_path / 'new').config.init_from == str(run)


@pytest.mark.parametrize('name', ['samples/00000002.png', 'checkpoints/notes.txt'])
def test_new_run_does_not_overwrite_other_files(config, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text('user data')
    with pytest.raises(
        UserError, match=rf'{tmp_path} contains no run, but files .*{path.parent.name}'
    ):
        training.train_and_evaluate(config, tmp_path)
    assert path.read_text() == 'user data'
    assert list(tmp_path.iterdir()) == [path.parent]

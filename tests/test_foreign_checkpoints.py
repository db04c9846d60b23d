"""Checkpoints of other runs in the folder of a run."""

import contextlib
import shutil

import jax.numpy as jnp
import pytest

from dcgan_jax import run_description, run_dir, training
from dcgan_jax.runtime import checkpoint
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.tasks import export, sample
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.class_folders import content, folder_config


@pytest.fixture
def foreign(finished, tmp_path):
    """Function that copies a checkpoint of step 4 to a path; it is that of a changed run."""

    def copy(target, **changes):
        workdir, state = finished
        run = run_dir.read(workdir)
        config = run.config.copy_and_resolve_references().unlock()
        config.seed += 1
        metadata = run_description.describe(run._replace(**(changes or {'config': config})))
        folder = tmp_path / 'foreign'
        with contextlib.closing(checkpoint.Checkpoints(folder, 1, metadata)) as checkpoints:
            checkpoints.save(state.replace(step=jnp.int32(4)), best={'value': 0.0, 'protocol': {}})
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / 'checkpoints' / '4', target)

    return copy


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [({}, 'seed: 1 -> 0'), ({'class_names': ('2', '1', '0')}, 'classes: 2, 1, 0 -> 0, 1, 2')],
)
def test_best_checkpoint_of_another_run_is_rejected(
    foreign, finished_copy, config, changes, expected
):
    foreign(finished_copy / 'best_checkpoint' / '4', **changes)
    before = content(finished_copy)
    config.num_steps = 8
    best = TaskOptions(workdir=finished_copy, checkpoint='best', num=1)
    for use in (
        lambda: sample.run(best),
        lambda: export.run(best),
        lambda: training.train_and_evaluate(config, finished_copy),
    ):
        with pytest.raises(UserError, match=rf'best_checkpoint/4 \({expected}\): .* move it'):
            use()
    assert content(finished_copy) == before
    assert int(restore(finished_copy).state.step) == 6


def test_checkpoint_of_another_run_is_not_used_in_place_of_a_damaged_one(
    foreign, finished_copy, config
):
    checkpoints = finished_copy / 'checkpoints'
    foreign(checkpoints / '4')
    assert int(restore(finished_copy).state.step) == 6
    (checkpoints / '6' / 'checksums' / 'metadata').write_text('{')
    before = content(finished_copy)
    for use in (
        lambda: restore(finished_copy),
        lambda: training.train_and_evaluate(config, finished_copy),
    ):
        with pytest.raises(UserError, match=r'checkpoints/4 \(seed: 1 -> 0\)'):
            use()
    assert content(finished_copy) == before


def test_networks_of_another_run_are_not_copied(foreign, finished_copy, config, tmp_path):
    """The last checkpoint of the run in `config.init_from` is damaged."""
    foreign(finished_copy / 'checkpoints' / '4')
    (finished_copy / 'checkpoints' / '6' / 'checksums' / 'metadata').write_text('{')
    config.init_from = str(finished_copy)
    with pytest.raises(UserError, match=r'init_from: .*checkpoints/4 \(seed: 1 -> 0\)'):
        training.train_and_evaluate(config, tmp_path / 'new')


def test_folder_with_other_numbered_folders_is_not_a_run(class_folder_copy, tmp_path):
    """A run in a folder named `checkpoints` can be used like any other."""
    images, run = class_folder_copy
    (tmp_path / 'layout' / 'checkpoints').mkdir(parents=True)
    (tmp_path / 'layout' / 'config.json').write_text('{"model_type": "other"}')
    run = run.rename(tmp_path / 'layout' / 'checkpoints' / '1')
    sample.run(TaskOptions(workdir=run, num=1))
    (tmp_path / 'layout' / 'config.json').unlink()
    config = folder_config(images)
    before = content(tmp_path)
    with pytest.raises(UserError, match=r'contains no run, but files .*\(checkpoints\): move'):
        training.train_and_evaluate(config, tmp_path / 'layout')
    assert content(tmp_path) == before


@pytest.mark.parametrize('name', ['checkpoints/100', 'best_checkpoint/1', 'damaged_checkpoints/6'])
def test_other_folders_in_the_place_of_checkpoints_are_kept(finished_copy, config, name):
    """One of them would be moved as a damaged checkpoint; others would be replaced later."""
    shutil.copytree(finished_copy / 'samples', finished_copy / name / 'samples')
    (finished_copy / name / 'config.json').write_text('{}')
    (finished_copy / 'checkpoints' / '6' / 'checksums' / 'metadata').write_text('{')
    before = content(finished_copy)
    config.num_steps = 8
    with pytest.raises(
        UserError, match=rf'{name} contains files that are not .*config.json, samples'
    ):
        training.train_and_evaluate(config, finished_copy)
    assert content(finished_copy) == before


def test_remains_of_a_checkpoint_are_accepted(finished_copy, config):
    """A process was killed while it deleted checkpoints, of which one is already empty."""
    checkpoints = finished_copy / 'checkpoints'
    for name in ('2', '4'):
        shutil.rmtree(checkpoints / name / 'state')
    shutil.rmtree(checkpoints / '2')
    (checkpoints / '2').mkdir()
    config.num_steps = 8
    assert int(training.train_and_evaluate(config, finished_copy).step) == 8


@pytest.mark.parametrize('name', ['2', '4', '9999'])
def test_files_that_are_added_during_the_run_are_not_deleted(finished, tmp_path, name):
    """Orbax would delete 2 after step 4 is saved, and would replace 4."""
    _, state = finished
    checkpoints = checkpoint.Checkpoints(tmp_path, 1, {})
    checkpoints.save(state.replace(step=jnp.int32(2)))
    checkpoints.wait()
    added = tmp_path / 'checkpoints' / name / 'thesis.txt'
    added.parent.mkdir(parents=True, exist_ok=True)
    added.write_text('work')
    with pytest.raises(TrainingError, match=r'thesis\.txt.*move them elsewhere'):
        checkpoints.save(state.replace(step=jnp.int32(4)))
    checkpoints.close()
    assert added.read_text() == 'work'

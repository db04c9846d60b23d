"""Initialization of a run with the networks of another run (`--init_from`)."""

import jax
import numpy as np
import pytest
from etils import epath

import dcgan_jax
from dcgan_jax import run_dir, training
from dcgan_jax.runtime.errors import UserError
from tests.class_folders import folder_config
from tests.compare import assert_equal_states


def test_init_from_copies_the_networks(class_folder_run, tmp_path):
    images, run = class_folder_run
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
def test_init_optimizer_copies_moments_and_restarts_schedules(class_folder_run, tmp_path):
    images, run = class_folder_run
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


def test_init_from_initializes_averaged_statistics(class_folder_run, tmp_path):
    images, run = class_folder_run
    config = folder_config(images)
    config.init_from, config.ema.batch_stats, config.num_steps = str(run), 'average', 1
    assert int(training.train_and_evaluate(config, tmp_path / 'new').step) == 1


def test_initialization_from_networks_of_other_classes_is_rejected(class_folder_copy, tmp_path):
    images, run = class_folder_copy
    (images / 'green').rename(images / 'zebra')
    config = folder_config(images)
    config.init_from = str(run)
    with pytest.raises(UserError, match=r'was trained on the classes blue, green, red'):
        training.train_and_evaluate(config, tmp_path / 'new')
    assert not epath.Path(tmp_path / 'new').exists()
    (tmp_path / 'new' / 'checkpoints').mkdir(parents=True)  # It is empty, so the run is new.
    with pytest.raises(UserError, match=r'was trained on the classes blue, green, red'):
        training.train_and_evaluate(config, tmp_path / 'new')


def test_initialization_from_another_architecture_is_rejected(class_folder_run, tmp_path):
    images, run = class_folder_run
    config = folder_config(images)
    config.init_from, config.discriminator.use_bias = str(run), not config.discriminator.use_bias
    with pytest.raises(UserError, match=r'a different discriminator: params/.*bias'):
        training.train_and_evaluate(config, tmp_path / 'new')
    assert not epath.Path(tmp_path / 'new').exists()
    config.init_from = str(tmp_path)
    with pytest.raises(UserError, match='contains no run'):
        training.train_and_evaluate(config, tmp_path / 'new')

"""NaN in a batch, with each value of `config.on_nonfinite`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dcgan_jax import models, parallel, train_state, training
from dcgan_jax.runtime import checkpoint, checkpoint_folder, nonfinite
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.train_step import train_step
from tests.compare import assert_equal_states
from tests.extractors import write_artifact

AT = 3  # Number of steps before the update with a batch of NaN.


@pytest.fixture
def poison(monkeypatch):
    """Function that replaces batches by NaN where `when(step, seed)` is true."""
    train_step = parallel.train_step

    def poison(when):
        def poisoned(state, real, labels, key, config, teacher):
            bad = jnp.asarray(when(state.step, config.seed))
            real = jnp.where(bad, jnp.float32('nan'), real)
            return train_step(state, real, labels, key, config, teacher)

        monkeypatch.setattr(parallel, 'train_step', poisoned)

    return poison


def assert_finite(state):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize('hook', ['evaluation.every', 'sample_every'])
def test_state_that_is_not_finite_is_neither_evaluated_nor_sampled(config, tmp_path, poison, hook):
    """Neither metrics nor checkpoints are due at the step of the hook."""
    poison(lambda step, seed: step == AT)
    config.evaluation.extractor = str(write_artifact(tmp_path / 'tiny.jaxexport'))
    config.evaluation.update(metrics=('frechet_distance',), num_samples=8)
    config.log_every = config.checkpoint_every = 100
    config.sample_every = 0
    config.num_steps = 20
    config.update_from_flattened_dict({hook: 5})
    with pytest.raises(TrainingError, match=r'is nan at step 4'):
        training.train_and_evaluate(config, tmp_path / 'run')
    names = {path.name for path in (tmp_path / 'run').iterdir() if path.is_dir()}
    assert not {'evaluation', 'samples'} & names
    assert not checkpoint_folder.has_any(tmp_path / 'run')
    assert not checkpoint_folder.complete_steps(tmp_path / 'run' / 'best_checkpoint')


def test_skip_changes_only_the_step(config, tmp_path, poison):
    poison(lambda step, seed: step == AT)
    config.on_nonfinite, config.log_every = 'skip', 4
    config.num_steps = AT
    before = training.train_and_evaluate(config, tmp_path)
    config.num_steps = AT + 1
    after = training.train_and_evaluate(config, tmp_path)
    assert int(after.step) == AT + 1
    assert_equal_states(after.replace(step=before.step), before)
    config.num_steps = 8
    state = training.train_and_evaluate(config, tmp_path / 'whole')
    assert_finite(state)
    events = EventAccumulator(str(tmp_path / 'whole')).Reload()
    counted = {event.step: event.value for event in events.Scalars(nonfinite.SKIPPED)}
    assert sum(counted.values()) == 1
    assert all(np.isfinite(event.value) for event in events.Scalars('generator/loss'))


def test_skip_does_not_change_finite_updates(config, tmp_path, finished):
    _, stopped = finished
    config.on_nonfinite = 'skip'
    assert_equal_states(training.train_and_evaluate(config, tmp_path / 'skip'), stopped)


def test_too_many_consecutive_skips_stop_the_run(config, tmp_path, poison):
    poison(lambda step, seed: step >= AT)
    config.on_nonfinite, config.max_skipped, config.num_steps = 'skip', 4, 20
    with pytest.raises(TrainingError, match='max_skipped=4'):
        training.train_and_evaluate(config, tmp_path)


def test_rollback_resumes_with_another_order_of_images(config, tmp_path, poison):
    poison(lambda step, seed: (step == AT) & (seed == config.seed))
    config.on_nonfinite = 'rollback'
    state = training.train_and_evaluate(config, tmp_path / 'run')
    assert int(state.step) == 6
    assert_finite(state)
    (why,) = json.loads((tmp_path / 'run' / nonfinite.FILE).read_text())
    assert f'at step {AT + 1}' in why
    # A process that was killed after recording the rollback resumes in the same way.
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path / 'other')
    nonfinite.add_rollback(tmp_path / 'other', 'as the other run')
    config.num_steps = 6
    assert_equal_states(training.train_and_evaluate(config, tmp_path / 'other'), state)


@pytest.mark.slow
def test_max_rollbacks_stops_the_run(config, tmp_path, poison):
    poison(lambda step, seed: step == AT)
    config.on_nonfinite, config.max_rollbacks = 'rollback', 1
    with pytest.raises(TrainingError, match=f'at step {AT + 1}'):
        training.train_and_evaluate(config, tmp_path)
    assert len(nonfinite.read_rollbacks(tmp_path)) == 1


def test_seeds_after_rollbacks_are_distinct():
    seeds = [nonfinite.seed_after_rollbacks(7, count) for count in range(100)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_other_errors_cause_no_rollback(config, tmp_path, monkeypatch):
    def save(self, state, **metadata):
        raise TrainingError('a checkpoint can not be written')

    monkeypatch.setattr(checkpoint.Checkpoints, 'save', save)
    config.on_nonfinite = 'rollback'
    with pytest.raises(TrainingError, match='written'):
        training.train_and_evaluate(config, tmp_path)
    assert nonfinite.read_rollbacks(tmp_path) == []


def test_new_run_with_the_rollbacks_of_another_run_is_rejected(config, tmp_path):
    """They would change the seed."""
    nonfinite.add_rollback(tmp_path, 'of an earlier run')
    with pytest.raises(UserError, match=r'contains no run, but files .*\(rollbacks\.json\)'):
        training.train_and_evaluate(config, tmp_path)


def test_infinite_statistics_are_not_finite(config):
    """The parameters are finite: in training, normalization uses the statistics of the batch."""
    config.loss.name, config.dtype = 'hinge', 'float32'
    networks = models.build(config, (8, 8, 3))
    state = train_state.create(config, networks, (8, 8, 3))
    real = np.zeros((8, 8, 8, 3), np.float32)
    step = jax.jit(lambda state: train_step(state, real, None, jax.random.key(0), config))
    assert all(np.isfinite(value) for value in step(state)[1].values())
    statistics = jax.tree.map(lambda leaf: leaf + np.inf, state.discriminator.batch_stats)
    state = state.replace(discriminator=state.discriminator.replace(batch_stats=statistics))
    after, metrics = step(state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.discriminator.params))
    names = {name for name, value in metrics.items() if not np.isfinite(value)}
    assert names == {'discriminator/batch_stats_norm'}


def test_damaged_rollbacks_file_is_named(tmp_path):
    (tmp_path / nonfinite.FILE).write_text('[')
    with pytest.raises(UserError, match=r'rollbacks\.json is damaged'):
        nonfinite.read_rollbacks(tmp_path)

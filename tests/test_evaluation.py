"""Evaluation during training, and the best checkpoint."""

import json

import jax
import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dcgan_jax import training
from dcgan_jax.data import image_source, images, shapes_builder, sources
from dcgan_jax.evaluation import SampleScorer
from dcgan_jax.metrics import evaluator
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import sample
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.compare import assert_equal_states
from tests.evaluated import best_step, evaluation_config, results


@pytest.fixture
def config(config, tmp_path, monkeypatch):
    return evaluation_config(config, tmp_path, monkeypatch)


def test_best_checkpoint_of_an_evaluated_run_is_kept(config, tmp_path, capsys):
    run = tmp_path / 'run'
    training.train_and_evaluate(config, run)
    by_step = results(run)
    assert list(by_step) == [2, 4, 6]
    assert best_step(run) == min(by_step, key=by_step.get)
    events = EventAccumulator(str(run)).Reload().Scalars('evaluation_tiny/frechet_distance')
    assert {event.step: event.value for event in events} == pytest.approx(by_step, rel=1e-6)
    assert capsys.readouterr().out.count('FD (tiny)') == 3

    protocol = json.loads(next((run / 'evaluation').glob('00000004_tiny_40_*.json')).read_text())[
        'protocol'
    ]
    assert protocol['step'] == 4
    assert protocol['num_samples'] == protocol['num_real'] == 40
    assert protocol['seed'] == 2**32 - 1  # A seed that users are unlikely to sample with.
    state = restore(run, 'best').state
    assert int(state.step) == best_step(run)
    sample.run(TaskOptions(workdir=run, out=tmp_path / 'best', num=3, checkpoint='best'))
    with np.load(tmp_path / 'best' / 'samples.npz', allow_pickle=False) as arrays:
        assert arrays['step'] == best_step(run)


def test_grayscale_run_is_evaluated_as_rgb(config, tmp_path):
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)):
        PIL.Image.fromarray(pixels).save(pictures / f'{index}.png')
    config.dataset, config.data_dir = 'folder', str(pictures)
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path / 'run')
    (path,) = (tmp_path / 'run' / 'evaluation').iterdir()
    result = json.loads(path.read_text())
    assert result['protocol']['gray_as_rgb']
    assert np.isfinite(result['frechet_distance'])
    sample.run(TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=3))
    with np.load(tmp_path / 'out' / 'samples.npz', allow_pickle=False) as arrays:
        assert arrays['images'].shape == (3, 8, 8, 1)


def test_evaluation_does_not_change_training(config, tmp_path, finished):
    workdir, unevaluated = finished
    assert_equal_states(training.train_and_evaluate(config, tmp_path / 'run'), unevaluated)
    assert not (workdir / 'evaluation').exists()


def test_too_few_samples_are_rejected_before_training(config, tmp_path):
    config.evaluation.num_samples = 3
    with pytest.raises(UserError, match='precision_recall needs at least 6'):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_evaluated_samples_have_the_classes_of_the_split(config, tmp_path, monkeypatch):
    config.conditional, config.evaluation.every = True, 0
    training.train_and_evaluate(config, tmp_path / 'run')
    trained = restore(tmp_path / 'run')
    run, networks, state = trained.run, trained.networks, trained.state
    source = sources.open_source('tiny_images', 'train', config.data_dir)
    seen = []

    def batches(self, state, latents, labels):
        seen.append(labels)
        yield np.zeros((len(latents), 8, 8, 3), np.uint8)

    monkeypatch.setattr(Sampler, 'batches', batches)
    scorer = SampleScorer(run.config, Sampler(networks.generator, run.config), source)
    result = scorer(state, 40, seed=5)
    # The 40 images have 3 classes.
    np.testing.assert_array_equal(np.bincount(seen[0]), [14, 13, 13])
    assert np.any(seen[0] != np.arange(40) % 3)  # Drawn at random, not in cyclic order.
    assert result.protocol['classes']


def test_evaluations_of_different_weights_have_different_files(config, finished, tmp_path):
    trained = restore(finished[0])
    source = sources.open_source('tiny_images', 'train', config.data_dir)
    scorer = SampleScorer(config, trained.sampler, source)
    changed = jax.tree.map(lambda leaf: leaf + 1e-3, trained.state.ema_params)
    states = [trained.state, trained.state.replace(ema_params=changed), trained.state]
    paths = [evaluator.write(tmp_path, 'x', scorer(state, 40, seed=5)) for state in states]
    assert paths[0] == paths[2] != paths[1]


def test_missing_best_checkpoint_is_rejected(finished):
    with pytest.raises(UserError, match=r'no best checkpoint.*evaluation\.every'):
        restore(finished[0], 'best')


def test_best_metric_that_is_not_computed_is_rejected(config, tmp_path):
    config.evaluation.best = 'inception_score'
    with pytest.raises(UserError, match="add 'inception_score'"):
        training.train_and_evaluate(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_modes_are_counted_without_an_extractor(config):
    modes = np.arange(30)
    pictures = shapes_builder.draw(
        *shapes_builder.split_mode(modes), shapes_builder.random_pose(30, np.random.default_rng(0))
    )
    source = image_source.ImageSource('shapes/1.0.0', 'train', (32, 32, 3), records=None)
    config.evaluation.update(extractor='nowhere', metrics=('mode_coverage',))
    batches = iter([pictures[:10], pictures[10:]])
    values, labels, protocol = evaluator.Evaluator(config.evaluation, source)(batches, 30, {})
    expected = {'modes': 30, 'modes_kl': np.log(1000 / 30), 'modes_unrecognized': 0.0}
    assert values == pytest.approx(expected)
    assert labels['modes'] == 'modes of 1,000'
    limits = {'modes_max_rms': 28.0, 'modes_max_residual_fraction': 0.75}
    names = {'metrics': ['mode_coverage'], 'modes_data_set': 'shapes'}
    assert protocol == {'num_samples': 30, **names, **limits}
    line = evaluator.summary(evaluator.Evaluation(values, labels, protocol))
    expected = 'modes of 1,000: 30 | KL to uniform: 3.507 | fraction unrecognized: 0 (30 images)'
    assert line == expected


def test_mode_coverage_of_another_data_set_is_rejected(config, tmp_path):
    config.evaluation.update(metrics=('mode_coverage',), best='modes')
    with pytest.raises(UserError, match=r'mode_coverage.*shapes'):
        training.train_and_evaluate(config, tmp_path / 'run')


def test_samples_of_conditional_runs_cycle_through_the_classes(config, tmp_path):
    config.conditional, config.evaluation.every = True, 0
    training.train_and_evaluate(config, tmp_path / 'run')
    trained = restore(tmp_path / 'run')
    run, networks, state = trained.run, trained.networks, trained.state
    assert (run.num_classes, networks.generator.num_conditions) == (3, 3)
    path = sample.run(TaskOptions(workdir=tmp_path / 'run', out=tmp_path / 'out', num=6)).path
    with np.load(tmp_path / 'out' / 'samples.npz', allow_pickle=False) as arrays:
        made, latents = arrays['images'], arrays['latents']
    sampler = Sampler(networks.generator, run.config)
    expected = sampler(state, latents, np.asarray([0, 1, 2, 0, 1, 2], np.int32))
    np.testing.assert_array_equal(made, expected)
    other = sampler(state, latents, np.asarray([1, 2, 0, 1, 2, 0], np.int32))
    assert np.any(made != other)
    assert path.exists()
    assert images.grid(made).shape[-1] == 3

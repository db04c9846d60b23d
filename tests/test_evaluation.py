"""Evaluation during training, and the best checkpoint."""

import contextlib
import json
import shutil
import signal

import jax
import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dcgan_jax import evaluation, training
from dcgan_jax.data import image_source, images, shapes_builder, sources
from dcgan_jax.evaluation import SampleScorer, TrainingEvaluator
from dcgan_jax.metrics import evaluator
from dcgan_jax.runtime import checkpoint, checkpoint_folder, nonfinite
from dcgan_jax.runtime.errors import StoppedError, TrainingError, UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import sample
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore
from tests.compare import assert_equal_states
from tests.conftest import slow
from tests.extractors import write_artifact


@pytest.fixture
def config(config, tmp_path, monkeypatch):
    monkeypatch.setenv('DCGAN_JAX_CACHE', str(tmp_path / 'cache'))
    config.evaluation.extractor = str(write_artifact(tmp_path / 'tiny.jaxexport'))
    config.evaluation.update(
        every=2, metrics=('frechet_distance', 'precision_recall'), num_samples=40, batch_size=16
    )
    return config


def results(workdir, name='frechet_distance'):
    paths = sorted((workdir / 'evaluation').glob('*.json'))
    return {int(path.stem[:8]): json.loads(path.read_text())[name] for path in paths}


def best_step(workdir):
    (path,) = (workdir / 'best_checkpoint').iterdir()
    return int(path.name)


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


def test_restored_step_is_evaluated_if_its_evaluation_is_missing(config, tmp_path, monkeypatch):
    """The run has no further steps."""
    config.num_steps = 2
    training.train_and_evaluate(config, tmp_path)
    evaluated = []
    evaluate = TrainingEvaluator.__call__

    def record(self, state):
        evaluated.append(int(state.step))
        evaluate(self, state)

    monkeypatch.setattr(TrainingEvaluator, '__call__', record)

    def resume(**changes):
        config.evaluation.update(changes)
        evaluated.clear()
        training.train_and_evaluate(config, tmp_path)
        return list(evaluated)

    assert resume() == []
    assert resume(metrics=('precision_recall', 'frechet_distance')) == []  # Another order.
    assert resume(num_samples=30) == [2]
    assert resume() == []
    assert resume(num_samples=40) == [2]  # The best checkpoint was evaluated with 30 samples.
    assert resume() == []
    assert resume(best='recall') == [2]
    assert resume() == []
    for path in (tmp_path / 'evaluation').iterdir():
        path.write_text('{')
    assert resume() == [2]
    shutil.rmtree(tmp_path / 'best_checkpoint' / '2')
    (tmp_path / '.has_best_checkpoint').unlink()
    assert resume() == [2]
    assert best_step(tmp_path) == 2


@pytest.mark.parametrize(
    ('best', 'others', 'is_comparable'),
    [
        ('frechet_distance', {'metrics': ['frechet_distance', 'precision_recall'], 'neighbors': 3,
                              'num_real_features': 9}, True),
        ('inception_score', {'num_real': 9, 'data_set': 'x', 'singular_covariance': True}, True),
        ('modes', {'extractor': 'x', 'extractor_sha256': '1', 'image_shape': [8, 8, 3]}, True),
        ('frechet_distance', {'num_samples': 9}, False),
        ('frechet_distance', {'data_sha256': '1'}, False),
        ('frechet_distance', {'reference_sha256': '1'}, False),
        ('precision', {'neighbors': 4}, False),
    ],
)  # fmt: skip
def test_only_settings_of_the_selecting_metric_are_compared(best, others, is_comparable):
    protocol = {'num_samples': 8, 'extractor': 'tiny', 'data_sha256': '0', 'neighbors': 3}
    compared = [evaluation._settings(best, values) for values in (protocol, protocol | others)]
    assert (compared[0] == compared[1]) == is_comparable


@pytest.mark.parametrize('method', ['save', 'wait'])
def test_evaluation_is_repeated_if_its_checkpoint_was_not_saved(
    config, tmp_path, monkeypatch, method
):
    """The metric decreases, so that every evaluated state is the best one."""
    values = iter([3.0, 2.0, 1.0])

    def fake_metrics(self, batches, count, protocol):
        list(batches)
        results = {'frechet_distance': next(values)}
        return evaluator.Evaluation(results, {'frechet_distance': 'FD'}, protocol)

    monkeypatch.setattr(evaluator.Evaluator, '__call__', fake_metrics)
    config.num_steps = 2
    run = tmp_path / 'run'
    training.train_and_evaluate(config, run)
    assert best_step(run) == 2
    config.num_steps = 4
    function = getattr(checkpoint.Checkpoints, method)

    def fail(self, *arguments, **metadata):
        if self._folder.name == 'best_checkpoint':
            raise TrainingError('the disk is full')
        return function(self, *arguments, **metadata)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, method, fail)
        with pytest.raises(TrainingError, match='the disk is full'):
            training.train_and_evaluate(config, run)
    assert list(results(run)) == [2]
    training.train_and_evaluate(config, run)
    assert list(results(run)) == [2, 4]
    assert best_step(run) == 4


def test_evaluation_of_discarded_weights_is_removed(config, tmp_path):
    """The run is resumed from a step before the evaluation and continues with other weights."""
    run = tmp_path / 'run'
    training.train_and_evaluate(config, run)
    before = sorted((run / 'evaluation').glob('*.json'))
    others = (
        run / 'evaluation' / '00000006_seed0_other.json',
        run / 'evaluation' / '00000006_x.json',
    )
    for path in others:
        path.write_text('{}' if 'seed' in path.name else '{')
    shutil.rmtree(run / 'checkpoints' / '6')
    nonfinite.add_rollback(run, 'for another order of images')
    training.train_and_evaluate(config, run)
    after = sorted(set((run / 'evaluation').glob('*.json')) - set(others))
    assert [path.name[:8] for path in after] == ['00000002', '00000004', '00000006']
    assert after[:2] == before[:2]
    assert after[2] != before[2]
    assert all(path.exists() for path in others)


@pytest.mark.parametrize(('better', 'kept'), [('recall', 4), slow('frechet_distance', 2)])
def test_resume_keeps_the_best_checkpoint(config, tmp_path, monkeypatch, better, kept):
    values = iter([3.0, 5.0, 4.0])

    def fake_metrics(self, batches, count, protocol):
        list(batches)
        return evaluator.Evaluation({better: next(values)}, {better: better}, protocol)

    monkeypatch.setattr(evaluator.Evaluator, '__call__', fake_metrics)
    config.evaluation.best = better
    config.num_steps = 4
    training.train_and_evaluate(config, tmp_path / 'run')
    config.num_steps = 6
    training.train_and_evaluate(config, tmp_path / 'run')
    assert best_step(tmp_path / 'run') == kept


@pytest.mark.slow
def test_best_of_another_protocol_is_replaced(config, tmp_path, monkeypatch, caplog):
    """The restored step is evaluated again, and is the best one with the new settings."""
    values = iter([1.0, 2.0, 3.0, 4.0])

    def fake_metrics(self, batches, count, protocol):
        list(batches)
        results = {'frechet_distance': next(values)}
        return evaluator.Evaluation(results, {'frechet_distance': 'FD'}, protocol)

    monkeypatch.setattr(evaluator.Evaluator, '__call__', fake_metrics)
    config.num_steps = 4
    training.train_and_evaluate(config, tmp_path / 'run')
    assert best_step(tmp_path / 'run') == 2
    config.num_steps, config.evaluation.num_samples = 6, 50
    training.train_and_evaluate(config, tmp_path / 'run')
    assert best_step(tmp_path / 'run') == 4
    assert 'selected by a different evaluation' in caplog.text


def test_best_checkpoint_of_a_later_step_is_replaced(config, tmp_path):
    """After a rollback, a best checkpoint of a later step is replaced."""
    run = tmp_path / 'run'
    config.evaluation.best = 'recall'
    state = training.train_and_evaluate(config, run)
    with contextlib.closing(checkpoint.Checkpoints(run, 1, {}, 'best_checkpoint')) as best:
        best.save(state.replace(step=state.step + 4), best={})
        assert best.latest_step() == 10
        best.save(state, best={'value': 0.5})
        assert best.latest_step() == 6
    assert checkpoint_folder.latest_metadata(run, 'best_checkpoint')['best'] == {'value': 0.5}


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


@pytest.mark.slow
@pytest.mark.parametrize('at', [2, 4, 6])
def test_interrupted_evaluation_is_repeated_on_resume(config, tmp_path, monkeypatch, at):
    config.checkpoint_every = 3  # Steps 2 and 4 are only saved if the run is stopped there.
    training.train_and_evaluate(config, tmp_path / 'whole')
    score = SampleScorer.__call__

    def stopped(self, state, *arguments):
        if int(state.step) == at:
            signal.raise_signal(signal.SIGTERM)
        return score(self, state, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SampleScorer, '__call__', stopped)
        with pytest.raises(StoppedError, match=f'step {at} after'):
            training.train_and_evaluate(config, tmp_path / 'parts')
    assert list(results(tmp_path / 'parts')) == list(range(2, at, 2))
    training.train_and_evaluate(config, tmp_path / 'parts')
    assert results(tmp_path / 'parts') == results(tmp_path / 'whole')
    assert best_step(tmp_path / 'parts') == best_step(tmp_path / 'whole')
    written = (tmp_path / 'parts' / 'evaluation').stat().st_mtime_ns
    training.train_and_evaluate(config, tmp_path / 'parts')
    # A complete evaluation is not repeated.
    assert (tmp_path / 'parts' / 'evaluation').stat().st_mtime_ns == written

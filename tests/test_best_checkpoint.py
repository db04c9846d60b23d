"""Evaluations of resumed runs, and the best checkpoint that they select."""

import contextlib
import shutil
import signal

import pytest

from dcgan_jax import evaluation, training
from dcgan_jax.evaluation import SampleScorer, TrainingEvaluator
from dcgan_jax.metrics import evaluator
from dcgan_jax.runtime import checkpoint, checkpoint_folder, nonfinite
from dcgan_jax.runtime.errors import StoppedError, TrainingError
from tests.conftest import slow
from tests.evaluated import best_step, evaluation_config, results


@pytest.fixture
def config(config, tmp_path, monkeypatch):
    return evaluation_config(config, tmp_path, monkeypatch)


def fake_results(monkeypatch, name, values):
    """Replace the metrics by the given values of one result."""
    values = iter(values)

    def evaluate(self, batches, count, protocol):
        list(batches)
        return evaluator.Evaluation({name: next(values)}, {name: name}, protocol)

    monkeypatch.setattr(evaluator.Evaluator, '__call__', evaluate)


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
    (tmp_path / 'has_best_checkpoint').unlink()
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
    fake_results(monkeypatch, 'frechet_distance', [3.0, 2.0, 1.0])
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
    fake_results(monkeypatch, better, [3.0, 5.0, 4.0])
    config.evaluation.best = better
    config.num_steps = 4
    training.train_and_evaluate(config, tmp_path / 'run')
    config.num_steps = 6
    training.train_and_evaluate(config, tmp_path / 'run')
    assert best_step(tmp_path / 'run') == kept


@pytest.mark.slow
def test_best_of_another_protocol_is_replaced(config, tmp_path, monkeypatch, caplog):
    """The restored step is evaluated again, and is the best one with the new settings."""
    fake_results(monkeypatch, 'frechet_distance', [1.0, 2.0, 3.0, 4.0])
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

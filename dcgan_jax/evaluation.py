"""Figures for a generator: of its samples, and of a run's states while it trains."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax import run_dir
from dcgan_jax.data import degradations, input_pipeline
from dcgan_jax.data.sources import ImageSource
from dcgan_jax.metrics import evaluator
from dcgan_jax.metrics.evaluator import Evaluation, Evaluator
from dcgan_jax.runtime import checkpoint, multihost, preemption
from dcgan_jax.runtime.clu_no_tf import metric_writers
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

# States are chosen by samples of a seed that nobody reports by accident.
SELECTION_SEED = 2**32 - 1
# What two comparable figures may differ in; a reference's content counts, not its file's name.
_STATE_FIELDS = ('step', 'seed', 'reference')


class SampleScorer:
    """Draws samples from a state's averaged generator and evaluates them."""

    def __init__(self, config: ConfigDict, sampler: Sampler, source: ImageSource):
        """Prepares for states of a run.

        Args:
            config: of the run.
            sampler: of its generator.
            source: the split to compare with, whose classes samples have as often as its images.

        Raises:
            UserError: see `Evaluator`.
        """
        self._config, self._source = config, source
        self._sampler = sampler
        self._evaluator = Evaluator(config.evaluation, source)

    def check(self, count: int) -> None:
        """Refuses a number of samples that is too small for a metric (`UserError`)."""
        self._evaluator.check(count)

    def __call__(self, state: GANState, count: int, seed: int) -> Evaluation:
        """Evaluates `count` samples of `seed`; how they were drawn is part of the protocol."""
        ema = self._config.ema
        protocol = {
            'step': int(state.step),
            'seed': seed,
            'weights': (
                f'EMA with a halflife of {ema.halflife_images:g} images, at most '
                f'{ema.rampup_ratio:g} of those seen'
                if ema.halflife_images
                else 'live'
            ),
            'batch_norm': self._batch_norm(state),
            'dtype': self._config.dtype,
        }
        if degradations.takes_images(self._config):
            protocol['inputs'] = {**self._config.input, 'images': 'drawn from the split'}
        if len(self._sampler.classes):
            protocol['classes'] = 'those of images drawn from the split'
        return self._evaluator(self._samples(state, count, seed), count, protocol)

    def _batch_norm(self, state: GANState) -> str:
        if not state.generator.batch_stats:
            return 'none'
        if self._config.ema.batch_stats == 'average':
            return 'EMA of the statistics'
        return f'statistics of {self._config.ema.standing_batches} batches of fresh latents'

    def _samples(self, state: GANState, count: int, seed: int) -> Iterator[np.ndarray]:
        given, labels = self._sampler.inputs(seed, count, self._source), self._sampler.labels(count)
        if len(self._sampler.classes):
            drawn = input_pipeline.batch_indices(seed, 0, count, len(self._source))[0]
            labels = self._source.read(drawn, labels=True).labels
        yield from self._sampler.batches(state, given, labels)


class TrainingEvaluator:
    """Evaluates a run's states as it trains, and keeps the best of them."""

    def __init__(
        self,
        config: ConfigDict,
        scorer: SampleScorer,
        workdir: epath.Path,
        writer: metric_writers.MetricWriter,
        best: checkpoint.Checkpoints,
        watcher: preemption.PreemptionWatcher,
    ):
        """Takes up where the run was: what it saved as its best is to be beaten.

        Args:
            config: of the run.
            scorer: of its states.
            workdir: gets `evaluation/*.json`.
            writer: gets the figures as scalars.
            best: where the best state is saved.
            watcher: to stop, which an evaluation gives way to.
        """
        self._config = config.evaluation
        self._scorer, self._workdir, self._writer, self._best = scorer, workdir, writer, best
        self._watcher = watcher
        saved = best.latest_metadata().get('best')
        self._to_beat = saved if _is_figure(saved) else None

    def evaluate_if_missing(self, state: GANState) -> bool:
        """Evaluates a state that a run went on from, if that was given up; returns as a call."""
        files = (self._workdir / run_dir.EVALUATIONS_FOLDER).glob(f'{int(state.step):08d}_*.json')
        ours = any('_seed' not in path.name for path in files)  # Not of `--mode=evaluate`.
        return multihost.all_true(ours) or self(state)

    def __call__(self, state: GANState) -> bool:
        """Evaluates a state and prints its figures; False if a signal ended that."""
        step = int(state.step)
        try:
            with self._watcher.interruptible():
                result = self._scorer(state, self._config.num_samples, SELECTION_SEED)
        except preemption.Preempted:
            return False
        if multihost.is_primary():
            evaluator.write(self._workdir / run_dir.EVALUATIONS_FOLDER, f'{step:08d}', result)
        group = '_'.join(['evaluation', *filter(None, [result.protocol.get('extractor')])])
        self._writer.write_scalars(
            step, {f'{group}/{name}': value for name, value in result.values.items()}
        )
        self._keep_best(state, result)
        tqdm.write(f'step {step}: {evaluator.line(result)}')
        return True

    def _keep_best(self, state: GANState, result: Evaluation) -> None:
        figure = self._config.best
        now = {'value': result.values[figure], 'measured': _comparable(figure, result.protocol)}
        sign = 1 if figure in evaluator.SMALLER_IS_BETTER else -1
        before = self._to_beat
        # Figures of another metric or protocol can't be compared: the best is looked for afresh.
        comparable = before is not None and before['measured'] == now['measured']
        if comparable and sign * now['value'] >= sign * before['value']:
            return
        self._to_beat = now
        self._best.save(state, best=now)


def _is_figure(saved: Any) -> bool:
    """Whether it is what `_keep_best` saves; metadata have no checksum."""
    return (
        isinstance(saved, dict)
        and isinstance(saved.get('value'), (int, float))
        and 'measured' in saved
    )


def _comparable(figure: str, protocol: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in protocol.items() if name not in _STATE_FIELDS}
    return {'figure': figure, **kept}

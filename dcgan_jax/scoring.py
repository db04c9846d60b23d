"""Figures for a generator: of its samples, and of a run's states while it trains."""

from collections.abc import Iterator

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import checkpoint, evaluation
from dcgan_jax.clu_light import metric_writers
from dcgan_jax.data import ImageSource
from dcgan_jax.evaluation import Evaluation, Evaluator
from dcgan_jax.models import Generator
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

FOLDER = 'evaluation'


class SampleScorer:
    """Draws samples from a state's averaged generator and evaluates them."""

    def __init__(self, config: ConfigDict, generator: Generator, source: ImageSource):
        """Prepares for states of a run.

        Args:
            config: of the run.
            generator: the module.
            source: the split to compare with.

        Raises:
            UserError: see `Evaluator`.
        """
        self._config = config
        self._sampler = Sampler(generator, config)
        self._evaluator = Evaluator(config.evaluation, source)

    def __call__(self, state: GANState, count: int, seed: int) -> Evaluation:
        """Evaluates `count` samples of `seed`; how they were drawn is part of the protocol."""
        ema = self._config.ema
        standing = f'statistics of {ema.standing_batches} batches of fresh latents'
        protocol = {
            'step': int(state.step),
            'seed': seed,
            'weights': (
                f'EMA with a halflife of {ema.halflife_images:g} images'
                if ema.halflife_images
                else 'live'
            ),
            'batch_norm': standing if ema.batch_stats == 'standing' else 'EMA of the statistics',
        }
        return self._evaluator(self._samples(state, count, seed), count, protocol)

    def _samples(self, state: GANState, count: int, seed: int) -> Iterator[np.ndarray]:
        latents, labels = self._sampler.latents(seed, count), self._sampler.labels(count)
        yield from self._sampler.batches(state, latents, labels)


class Progress:
    """Evaluates a run's states as it trains, and keeps the best of them."""

    def __init__(
        self,
        config: ConfigDict,
        scorer: SampleScorer,
        workdir: epath.Path,
        writer: metric_writers.MetricWriter,
        best: checkpoint.Checkpoints,
    ):
        """Takes up where the run was: what it saved as its best is to be beaten.

        Args:
            config: of the run.
            scorer: of its states.
            workdir: gets `evaluation/STEP.json`.
            writer: gets the figures as scalars.
            best: where the best state is saved.
        """
        self._config = config.evaluation
        self._scorer, self._workdir, self._writer, self._best = scorer, workdir, writer, best
        # A run that goes on by another metric starts its comparison afresh.
        self._to_beat = best.latest_metadata().get(f'best_{self._config.best}')

    def __call__(self, state: GANState) -> str:
        """Evaluates a state; returns its figures in a line."""
        step = int(state.step)
        result = self._scorer(state, self._config.num_samples, seed=0)
        evaluation.write(self._workdir / FOLDER / f'{step:08d}.json', result)
        self._writer.write_scalars(
            step, {f'evaluation/{name}': value for name, value in result.values.items()}
        )
        self._keep_best(state, result.values[self._config.best])
        return evaluation.line(result)

    def _keep_best(self, state: GANState, value: float) -> None:
        sign = 1 if self._config.best in evaluation.SMALLER_IS_BETTER else -1
        if self._to_beat is not None and sign * value >= sign * self._to_beat:
            return
        self._to_beat = value
        self._best.save(state, **{f'best_{self._config.best}': value})

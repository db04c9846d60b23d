"""Evaluation of samples, also during training."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax import run_dir, weights
from dcgan_jax.data import degradations, input_pipeline
from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.metrics import evaluator
from dcgan_jax.metrics.evaluator import Evaluation, Evaluator
from dcgan_jax.metrics.metric import Need
from dcgan_jax.metrics.registry import METRIC_OF_RESULT, METRICS, SMALLER_IS_BETTER
from dcgan_jax.runtime import checkpoint, checkpoint_folder, multihost, preemption
from dcgan_jax.runtime.clu_no_tf import metric_writers
from dcgan_jax.runtime.files import read_bytes
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

# Seed of the samples that select the best checkpoint, which reported results should not use.
SELECTION_SEED = 2**32 - 1
# Fields of the protocol in which comparable results may differ. The field 'reference' is a file
# name; the content of the reference is compared instead.
_IGNORED_FIELDS = ('step', 'weights_sha256', 'seed', 'metrics', 'reference')


class SampleScorer:
    """Evaluates samples of the EMA generator."""

    def __init__(self, config: ConfigDict, sampler: Sampler, source: ImageSource):
        """Initialize the evaluator of a run.

        Args:
            config: The run's config.
            sampler: Sampler of the run's generator.
            source: The split to compare with. Conditional samples have its class distribution.

        Raises:
            UserError: See `Evaluator`.
        """
        self._config, self._source = config, source
        self._sampler = sampler
        self._evaluator = Evaluator(config.evaluation, source)

    def check(self, count: int) -> None:
        """Raise `UserError` if the number of samples is too small for a metric."""
        self._evaluator.check(self._limit(count))

    def __call__(self, state: GANState, count: int, seed: int) -> Evaluation:
        """Evaluate `count` samples; the protocol describes how they are generated.

        A generator that restores images is evaluated at most once on each image of the split.
        """
        if (limit := self._limit(count)) < count:
            name = f'{self._source.name} {self._source.split}'
            logging.warning(
                '%s has only %d images: using %d samples, not %d', name, limit, limit, count
            )
            count = limit
        protocol = self.known_protocol(state, count, seed)
        return self._evaluator(self._samples(state, count, seed), count, protocol)

    def known_protocol(self, state: GANState, count: int, seed: int) -> dict[str, Any]:
        """Return the part of the protocol that is known before the evaluation."""
        ema = self._config.ema
        protocol = self._evaluator.settings | {
            'num_samples': self._limit(count),
            'step': int(state.step),
            'weights_sha256': _weights_digest(state),
            'seed': seed,
            'ema_halflife_images': ema.halflife_images,
            'ema_rampup_ratio': ema.rampup_ratio,
            'batch_norm': self._batch_norm(state),
            'dtype': self._config.dtype,
        }
        if degradations.takes_images(self._config):
            protocol['inputs'] = {**self._config.input, 'images': 'sampled from the split'}
        if len(self._sampler.classes):
            protocol['classes'] = 'class distribution of the split'
        return protocol

    def _batch_norm(self, state: GANState) -> str:
        if not state.generator.batch_stats:
            return 'none'
        if self._config.ema.batch_stats == 'average':
            return 'EMA of the statistics'
        return f'statistics of {self._config.ema.standing_batches} batches of fresh latents'

    def _limit(self, count: int) -> int:
        """Return `count`, but at most the number of images if the generator restores images."""
        return min(count, len(self._source)) if degradations.takes_images(self._config) else count

    def _samples(self, state: GANState, count: int, seed: int) -> Iterator[np.ndarray]:
        inputs = self._sampler.inputs(seed, count, self._source)
        labels = self._sampler.labels(count)
        if len(self._sampler.classes):
            indices = input_pipeline.batch_indices(seed, 0, count, len(self._source))[0]
            labels = self._source.read(indices, labels=True).labels
        yield from self._sampler.batches(state, inputs, labels)


class TrainingEvaluator:
    """Evaluates a run during training and saves the best state."""

    def __init__(
        self,
        config: ConfigDict,
        scorer: SampleScorer,
        workdir: epath.Path,
        writer: metric_writers.MetricWriter,
        best: checkpoint.Checkpoints,
        watcher: preemption.PreemptionWatcher,
    ):
        """Initialize with the best result of the run so far.

        Args:
            config: The run's config.
            scorer: Evaluator of samples.
            workdir: Folder of the run; results are written to `evaluation/*.json` in it.
            writer: TensorBoard writer of the results.
            best: Checkpoint manager of the best state.
            watcher: Watcher whose signals interrupt an evaluation.
        """
        self._config = config.evaluation
        self._folder = workdir / run_dir.EVALUATIONS_FOLDER
        self._scorer, self._writer, self._best = scorer, writer, best
        self._watcher = watcher
        metadata = checkpoint_folder.latest_metadata(workdir, checkpoint_folder.BEST_FOLDER)
        best_result = metadata.get('best')
        self._best_result = best_result if _is_valid(best_result) else None

    def evaluate_if_missing(self, state: GANState) -> None:
        """Evaluate a restored state, unless it has been evaluated with the same settings."""
        with self._watcher.interruptible():
            exists = multihost.on_primary(self._is_evaluated, state)
        if not multihost.from_primary(int(bool(exists))):
            self(state)

    def _is_evaluated(self, state: GANState) -> bool:
        """Return whether the state and the best state were evaluated with the same settings."""
        files = _evaluations(self._folder, int(state.step))
        if not files or self._best_result is None:
            return False
        known = self._scorer.known_protocol(state, self._config.num_samples, SELECTION_SEED)
        known = json.loads(json.dumps(known))
        best = self._best_result['protocol']
        return any(
            protocol == protocol | known and best == _settings(self._config.best, protocol)
            for protocol in map(_read_protocol, files)
        )

    def __call__(self, state: GANState) -> None:
        """Evaluate a state, save it if it is the best, and print the results.

        Raises:
            Preempted: If a signal is received.
        """
        step = int(state.step)
        with self._watcher.interruptible():
            result = self._scorer(state, self._config.num_samples, SELECTION_SEED)
        # The result is written last, because an evaluation with a result is not repeated.
        self._keep_best(state, result)
        multihost.on_primary(self._write, step, result)
        group = '_'.join(['evaluation', *filter(None, [result.protocol.get('extractor')])])
        self._writer.write_scalars(
            step, {f'{group}/{name}': value for name, value in result.values.items()}
        )
        tqdm.write(f'step {step}: {evaluator.summary(result)}')

    def _write(self, step: int, result: Evaluation) -> None:
        """Write a result and remove the results of other weights at the same step.

        These exist if the run was resumed from an earlier step.
        """
        evaluator.write(self._folder, f'{step:08d}', result)
        digest = result.protocol['weights_sha256']
        for path in _evaluations(self._folder, step):
            if _read_protocol(path).get('weights_sha256', digest) != digest:
                path.unlink()

    def _keep_best(self, state: GANState, result: Evaluation) -> None:
        name = self._config.best
        new = {'value': result.values[name], 'protocol': _settings(name, result.protocol)}
        sign = 1 if name in SMALLER_IS_BETTER else -1
        best = self._best_result
        # Results of different metrics or protocols are not comparable, so the selection restarts.
        comparable = best is not None and best['protocol'] == new['protocol']
        if comparable and sign * new['value'] >= sign * best['value']:
            return
        if best is not None and not comparable:
            logging.warning(
                'the best checkpoint was selected by a different evaluation; it is replaced by the '
                'checkpoint of step %d',
                int(state.step),
            )
        self._best_result = new
        self._best.save(state, best=new)
        self._best.wait()


def _weights_digest(state: GANState) -> str:
    """Return the SHA-256 of the EMA of G's parameters and BatchNorm statistics."""
    averaged = {'params': state.ema_params, 'batch_stats': state.ema_batch_stats}
    return hashlib.sha256(weights.serialize(jax.device_get(averaged), {})).hexdigest()


def _read_protocol(path: epath.Path) -> dict[str, Any]:
    """Return the protocol of an evaluation, or {} if the file is damaged."""
    try:
        protocol = json.loads(read_bytes(path))['protocol']
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return protocol if isinstance(protocol, dict) else {}


def _evaluations(folder: epath.Path, step: int) -> list[epath.Path]:
    """Return the files of evaluations at `step`, without those of `--mode=evaluate`."""
    paths = folder.glob(f'{step:08d}_*.json')
    return [path for path in paths if not re.match(r'\d+_seed\d+_', path.name)]


def _is_valid(result: Any) -> bool:
    """Return whether `result` has the form saved by `_keep_best`; metadata has no checksum."""
    return (
        isinstance(result, dict)
        and isinstance(result.get('value'), (int, float))
        and isinstance(result.get('protocol'), dict)
    )


def _settings(name: str, protocol: dict[str, Any]) -> dict[str, Any]:
    """Return the name of a result and the settings that comparable results must share."""
    selecting = METRICS[METRIC_OF_RESULT[name]]
    ignored = {*_IGNORED_FIELDS}.union(*(metric.settings for metric in METRICS.values()))
    ignored -= selecting.settings.keys()
    uses_statistics = Need.REAL_STATISTICS in selecting.needs
    uses_real_features = Need.REAL_FEATURES in selecting.needs
    if Need.FEATURES not in selecting.needs:
        ignored |= {'extractor', 'extractor_sha256', 'resize', 'image_shape', 'gray_as_rgb'}
    if not uses_statistics:
        ignored |= {'num_real', 'reference_sha256', 'singular_covariance'}
    if not uses_real_features:
        ignored.add('num_real_features')
    # Statistics of a reference file replace those of the split.
    if not uses_real_features and (not uses_statistics or 'reference_sha256' in protocol):
        ignored |= {'data_set', 'split', 'data_sha256', 'real_image_shape'}
        ignored |= {'on_corrupt', 'max_pixels'}
    kept = {key: value for key, value in protocol.items() if key not in ignored}
    return {'result': name, **kept}

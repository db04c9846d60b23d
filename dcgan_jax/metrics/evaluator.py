"""Evaluation of images against a data set."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax.data.sources import ImageSource
from dcgan_jax.metrics import (
    Statistics,
    extractors,
    frechet_distance,
    inception_score,
    kernel_distance,
    mode_coverage,
    precision_recall,
    reference_stats,
    statistics,
)
from dcgan_jax.metrics.inception_score import SPLITS
from dcgan_jax.metrics.kernel_distance import SUBSET_SIZE, SUBSETS
from dcgan_jax.metrics.mode_coverage import IMAGE_SHAPE, MAX_RESIDUAL_FRACTION, MAX_RMS
from dcgan_jax.metrics.precision_recall import NUM_NEIGHBORS
from dcgan_jax.runtime.batching import rebatch
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic


class Metric(NamedTuple):
    """Properties of a metric.

    Attributes:
        results: Names of its results in `Evaluation.values`.
        min_samples: Smallest number of samples, and of real images if they are compared.
        smaller_is_better: Results for which smaller is better.
        compares_features: Whether the metric needs features of real images.
    """

    results: tuple[str, ...]
    min_samples: int
    smaller_is_better: tuple[str, ...] = ()
    compares_features: bool = False


METRICS = {
    'frechet_distance': Metric(
        ('frechet_distance',), min_samples=2, smaller_is_better=('frechet_distance',)
    ),
    'kernel_distance': Metric(
        ('kernel_distance',), min_samples=SUBSET_SIZE, smaller_is_better=('kernel_distance',),
        compares_features=True,
    ),
    'inception_score': Metric(('inception_score',), min_samples=SPLITS),
    'precision_recall': Metric(
        ('precision', 'recall', 'density', 'coverage'), min_samples=NUM_NEIGHBORS + 1,
        compares_features=True,
    ),
    'mode_coverage': Metric(
        ('modes', 'modes_kl', 'modes_unrecognized'), min_samples=1,
        smaller_is_better=('modes_kl', 'modes_unrecognized'),
    ),
}  # fmt: skip
SMALLER_IS_BETTER = tuple(name for metric in METRICS.values() for name in metric.smaller_is_better)
METRIC_OF_RESULT = {result: name for name, metric in METRICS.items() for result in metric.results}
_FEATURE_METRICS = {name for name, metric in METRICS.items() if metric.compares_features}
_MODES_DATA_SET = 'shapes'  # The data set with known modes.


class Evaluation(NamedTuple):
    """Results of an evaluation.

    Attributes:
        values: Results by name (see `METRICS`), and standard deviations '..._std'.
        labels: Display names of the results, e.g. 'FID'.
        protocol: Settings that the results depend on.
    """

    values: dict[str, float]
    labels: dict[str, str]
    protocol: dict[str, Any]


class Evaluator:
    """Evaluates images against a split, whose features are extracted at most once."""

    def __init__(self, config: ConfigDict, source: ImageSource):
        """Load the extractor and check that the metrics can be computed.

        Args:
            config: `config.evaluation` of a run.
            source: The split to compare with.

        Raises:
            UserError: If the extractor, the reference or the split is not suitable.
        """
        self._config, self._source = config, source
        self._metrics = set(config.metrics)
        if 'mode_coverage' in self._metrics and source.name.split('/')[0] != _MODES_DATA_SET:
            raise UserError(
                f'config.evaluation.metrics: mode_coverage needs the data set {_MODES_DATA_SET!r}, '
                f'not {source.name}: remove it'
            )
        if 'mode_coverage' in self._metrics and source.image_shape != IMAGE_SHAPE:
            raise UserError(
                f'config.evaluation.metrics: mode_coverage needs images of shape {IMAGE_SHAPE}, '
                f'not {source.image_shape}: remove it, or reset config.data.image_size'
            )
        self._extractor = self._given_statistics = None
        if self._metrics != {'mode_coverage'}:
            self._extractor = extractors.load(
                config.extractor, config.inception_weights, config.batch_size
            )
            self._extractor.check(source.image_shape)
            if config.reference:
                self._given_statistics = reference_stats.read_statistics(
                    config.reference, self._extractor
                )
        for metric in _FEATURE_METRICS & self._metrics:
            name = f'the number of images in {source.name} {source.split}'
            name = name if len(source) < config.num_real else 'config.evaluation.num_real'
            self._check_count(metric, min(config.num_real, len(source)), name)

    def __call__(
        self, batches: Iterable[np.ndarray], count: int, protocol: dict[str, Any]
    ) -> Evaluation:
        """Compute the metrics of `config.metrics`.

        Args:
            batches: Batches of images, each uint8 `[b, H, W, C]` for any b.
            count: Total number of images.
            protocol: JSON-serializable description of the images, e.g. step and seed.

        Raises:
            UserError: If there are too few images for a metric or they do not fit the extractor.
        """
        self.check(count)
        kept: list[np.ndarray] = []
        if 'mode_coverage' in self._metrics:
            batches = _collect(batches, kept)
        values, labels, settings = {}, {}, {}
        if self._extractor is None:
            for _ in batches:
                pass
        else:
            features, logits, shape = self._extract(batches, count)
            settings |= {'image_shape': list(shape), 'gray_as_rgb': shape[2] == 1}
            if self._uses_split and shape[:2] != self._source.image_shape[:2]:
                logging.warning(
                    'comparing images of %dx%d pixels with real images of %dx%d',
                    *(*shape[1::-1], *self._source.image_shape[1::-1]),
                )
            values, labels = self._compare(features, logits)
            if 'frechet_distance' in self._metrics:
                num_real, dimension = self._statistics.n, features.shape[1]
                # The distance is then overestimated.
                settings['singular_covariance'] = min(count, num_real) <= dimension
                if num_real <= dimension:
                    logging.warning(
                        'only %d real images for %d feature dimensions: the Fréchet distance is '
                        'strongly overestimated',
                        *(num_real, dimension),
                    )
        if kept:
            coverage = mode_coverage(np.concatenate(kept))
            values |= {
                'modes': coverage.modes,
                'modes_kl': coverage.kl,
                'modes_unrecognized': coverage.unrecognized,
            }
            labels |= {
                'modes': f'modes of {len(coverage.counts):,}',
                'modes_kl': 'KL to uniform',
                'modes_unrecognized': 'fraction unrecognized',
            }
        settings |= self._protocol() | {'n_fake': count} | protocol
        return Evaluation(values, labels, settings)

    def check(self, count: int) -> None:
        """Raise `UserError` if the number of images is too small for a metric."""
        for metric in self._config.metrics:
            self._check_count(metric, count, 'the number of samples')

    def _extract(
        self, batches: Iterable[np.ndarray], count: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
        """Return (features, logits, (H, W, C) of the images)."""
        extracted, shape = [], None
        with tqdm(total=count, desc='Evaluating', unit='image', disable=None) as bar:
            for batch in rebatch(batches, self._extractor.preferred_batch_size):
                shape = batch.shape[1:]
                extracted.append(self._extractor(batch))
                bar.update(len(batch))
        features, logits = zip(*extracted, strict=True)
        return np.concatenate(features), np.concatenate(logits), shape

    def _compare(
        self, features: np.ndarray, logits: np.ndarray
    ) -> tuple[dict[str, float], dict[str, str]]:
        names = self._extractor.labels
        values, labels = {}, {}
        for metric in self._config.metrics:
            if metric == 'frechet_distance':
                fake, real = statistics(features), self._statistics
                values[metric] = frechet_distance(fake.mu, fake.sigma, real.mu, real.sigma)
                labels[metric] = names.frechet_distance
            elif metric == 'mode_coverage':
                continue  # Not based on features.
            elif metric == 'precision_recall':
                results = precision_recall(self._real.features, features)._asdict()
                values |= results
                labels |= {name: f'{name} ({self._extractor.name})' for name in results}
            else:
                mean, std = (
                    inception_score(logits)
                    if metric == 'inception_score'
                    else kernel_distance(features, self._real.features)
                )
                values |= {metric: mean, f'{metric}_std': std}
                label = getattr(names, metric)
                labels |= {metric: label, f'{metric}_std': f'{label} std'}
        return values, labels

    @functools.cached_property
    def _real(self) -> reference_stats.Reference:
        return reference_stats.compute_reference(
            self._source,
            self._extractor,
            num_features=self._config.num_real,
            with_statistics=self._given_statistics is None and 'frechet_distance' in self._metrics,
        )

    @property
    def _uses_split(self) -> bool:
        """Whether images of the split are used, and not only a file of statistics."""
        distance = 'frechet_distance' in self._metrics and self._given_statistics is None
        return distance or bool(_FEATURE_METRICS & self._metrics)

    @functools.cached_property
    def _fingerprint(self) -> str:
        return reference_stats.fingerprint(self._source)

    @property
    def _statistics(self) -> Statistics:
        return self._given_statistics or self._real.statistics

    def _protocol(self) -> dict[str, Any]:
        protocol = {}
        if self._uses_split:
            protocol |= {
                'data_set': self._source.name,
                'split': self._source.split,
                'data_fingerprint': self._fingerprint,
                'real_image_shape': list(self._source.image_shape),
            }
        if self._extractor is not None:
            protocol |= {
                'extractor': self._extractor.name,
                'extractor_sha256': self._extractor.sha256,
                'resize': self._extractor.resize,
            }
        if 'frechet_distance' in self._metrics:
            protocol['n_real'] = self._statistics.n
            if self._given_statistics is not None:
                protocol['reference'] = epath.Path(self._config.reference).name
                protocol['reference_sha256'] = _sha256(self._given_statistics)
        if _FEATURE_METRICS & self._metrics:
            protocol['n_real_features'] = len(self._real.features)
        if 'kernel_distance' in self._metrics:
            protocol['kernel_subsets'] = f'{SUBSETS} of {SUBSET_SIZE:,}'
        if 'inception_score' in self._metrics:
            protocol['inception_score_splits'] = SPLITS
        if 'precision_recall' in self._metrics:
            protocol['neighbors'] = NUM_NEIGHBORS
        if 'mode_coverage' in self._metrics:
            protocol |= {
                'modes_of': _MODES_DATA_SET,
                'modes_max_rms': MAX_RMS,
                'modes_max_share': MAX_RESIDUAL_FRACTION,
            }
        return protocol

    @staticmethod
    def _check_count(metric: str, count: int, name: str) -> None:
        minimum = METRICS[metric].min_samples
        if count < minimum:
            raise UserError(
                f'{name} is {count}, and {metric} needs at least {minimum}: use more images, or '
                'remove it from config.evaluation.metrics'
            )


def write(folder: epath.Path, name: str, evaluation: Evaluation) -> epath.Path:
    """Write an evaluation to `NAME_EXTRACTOR_N_HASH.json` and return the path.

    The hash is that of the metrics and the protocol, so that no other evaluation is overwritten.
    """
    protocol = evaluation.protocol
    identity = json.dumps([sorted(evaluation.values), protocol], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    # File names are limited to 255 bytes.
    stem, extractor = (_truncate(part) for part in (name, protocol.get('extractor', 'modes')))
    path = folder / f'{stem}_{extractor}_{protocol["n_fake"]}_{digest}.json'
    content = evaluation.values | {'labels': evaluation.labels, 'protocol': evaluation.protocol}
    return write_atomic(path, f'{json.dumps(content, indent=2)}\n'.encode())


def _truncate(name: str) -> str:
    return name.encode(errors='replace')[:80].decode(errors='ignore')


def summary(evaluation: Evaluation) -> str:
    """Return a one-line summary of an evaluation."""
    values, labels, protocol = evaluation
    parts = []
    for name, value in values.items():
        if not name.endswith('_std'):
            std = f' ± {values[f"{name}_std"]:.2g}' if f'{name}_std' in values else ''
            parts.append(f'{labels[name]}: {value:.4g}{std}')
    reference = protocol.get('reference') or f'{protocol.get("data_set")} {protocol.get("split")}'
    if 'n_real' in protocol:
        reference = f'{protocol["n_real"]:,} of {reference}'
    against = f' against {reference}' if 'reference' in protocol or 'data_set' in protocol else ''
    return f'{" | ".join(parts)} ({protocol["n_fake"]:,} images{against})'


def _sha256(statistics: Statistics) -> str:
    """Return a hash of the values, independent of the file."""
    content = statistics.mu.tobytes() + statistics.sigma.tobytes() + str(statistics.n).encode()
    return hashlib.sha256(content).hexdigest()


def _collect(batches: Iterable[np.ndarray], kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the batches and append each of them to `kept`."""
    for batch in batches:
        kept.append(batch)
        yield batch

"""Scores images against a data set: samples of a generator, or anybody's."""

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
from dcgan_jax.metrics.mode_coverage import IMAGE_SHAPE, MAX_RMS, MAX_SHARE
from dcgan_jax.metrics.precision_recall import NEIGHBORS
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic


class Metric(NamedTuple):
    """What the evaluator needs to know of a metric.

    Attributes:
        figures: Names of its figures in `Evaluation.values`.
        min_samples: Fewest samples, and fewest real images where they are compared.
        smaller_is_better: Those of its figures that are better when smaller.
        compares_features: Whether it needs the features of all real images.
    """

    figures: tuple[str, ...]
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
        ('precision', 'recall', 'density', 'coverage'), min_samples=NEIGHBORS + 1,
        compares_features=True,
    ),
    'mode_coverage': Metric(
        ('modes', 'modes_kl', 'modes_unrecognized'), min_samples=1,
        smaller_is_better=('modes_kl', 'modes_unrecognized'),
    ),
}  # fmt: skip
SMALLER_IS_BETTER = tuple(name for metric in METRICS.values() for name in metric.smaller_is_better)
METRIC_OF_RESULT = {figure: name for name, metric in METRICS.items() for figure in metric.figures}
_OF_FEATURES = {name for name, metric in METRICS.items() if metric.compares_features}
_MODES_OF = 'shapes'  # The data set whose modes are known.


class Evaluation(NamedTuple):
    """What was measured and how.

    Attributes:
        values: figures by name: 'frechet_distance', 'kernel_distance' (and '..._std'),
            'inception_score' (and '..._std'), 'precision', 'recall', 'density', 'coverage',
            'modes', 'modes_kl', 'modes_unrecognized'.
        labels: what each of these is called; 'FID', say.
        protocol: all that the figures depend on.
    """

    values: dict[str, float]
    labels: dict[str, str]
    protocol: dict[str, Any]


class Evaluator:
    """Compares images with those of a split, which are read and extracted at most once."""

    def __init__(self, config: ConfigDict, source: ImageSource):
        """Loads the extractor and checks what can be checked before images are drawn.

        Args:
            config: `config.evaluation` of a run.
            source: the split to compare with.

        Raises:
            UserError: extractor, reference or split don't allow the metrics.
        """
        self._config, self._source = config, source
        self._asked = set(config.metrics)
        if 'mode_coverage' in self._asked and source.name.split('/')[0] != _MODES_OF:
            raise UserError(
                f'config.evaluation.metrics: mode_coverage knows the modes of {_MODES_OF!r}, not '
                f'those of {source.name}: leave it out'
            )
        if 'mode_coverage' in self._asked and source.image_shape != IMAGE_SHAPE:
            raise UserError(
                'config.evaluation.metrics: mode_coverage takes images of '
                f'{IMAGE_SHAPE}, these have {source.image_shape}: leave it out, or '
                'config.data.image_size'
            )
        self._extractor = self._given = None
        if self._asked != {'mode_coverage'}:
            self._extractor = extractors.load(
                config.extractor, config.inception_weights, config.batch_size
            )
            self._extractor.check(source.image_shape)
            if config.reference:
                self._given = reference_stats.read_statistics(config.reference, self._extractor)
        for metric in _OF_FEATURES & self._asked:
            short = f'the number of images in {source.name} {source.split}'
            what = short if len(source) < config.num_real else 'config.evaluation.num_real'
            self._check_count(metric, min(config.num_real, len(source)), what)

    def __call__(
        self, batches: Iterable[np.ndarray], count: int, protocol: dict[str, Any]
    ) -> Evaluation:
        """Extracts the images' features and computes the metrics of `config.metrics`.

        Args:
            batches: uint8 `[b, H, W, C]` each, of any b.
            count: images in all of them.
            protocol: what the caller knows of the images: step, seed, say; JSON.

        Raises:
            UserError: they are too few for a metric, or don't fit the extractor.
        """
        self.check(count)
        kept: list[np.ndarray] = []
        if 'mode_coverage' in self._asked:
            batches = _keeping(batches, kept)
        values, labels, how = {}, {}, {}
        if self._extractor is None:
            for _ in batches:
                pass
        else:
            features, logits, shape = self._extract(batches, count)
            how |= {'image_shape': list(shape), 'gray_as_rgb': shape[2] == 1}
            if self._compares and shape[:2] != self._source.image_shape[:2]:
                logging.warning(
                    'images of %dx%d pixels are compared with real ones of %dx%d',
                    *(*shape[1::-1], *self._source.image_shape[1::-1]),
                )
            values, labels = self._compare(features, logits)
            if 'frechet_distance' in self._asked:
                # Then FD is far too large.
                how['singular_covariance'] = min(count, self._statistics.n) <= features.shape[1]
                if self._statistics.n <= features.shape[1]:
                    logging.warning(
                        '%d real images for %d feature dimensions: the Fréchet distance to so few '
                        'is far too large',
                        *(self._statistics.n, features.shape[1]),
                    )
        if kept:
            shown = mode_coverage(np.concatenate(kept))
            values |= {
                'modes': shown.modes,
                'modes_kl': shown.kl,
                'modes_unrecognized': shown.unrecognized,
            }
            labels |= {
                'modes': f'modes of {len(shown.counts):,}',
                'modes_kl': 'KL to uniform',
                'modes_unrecognized': 'share unrecognized',
            }
        how |= self._protocol() | {'n_fake': count} | protocol
        return Evaluation(values, labels, how)

    def check(self, count: int) -> None:
        """Refuses a number of images that is too small for a metric.

        Raises:
            UserError: names the metric.
        """
        for metric in self._config.metrics:
            self._check_count(metric, count, 'the number of samples')

    def _extract(
        self, batches: Iterable[np.ndarray], count: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
        """(features, logits, (H, W, C) of the images)."""
        extracted, shape = [], None
        with tqdm(total=count, desc='Evaluating', unit='image', disable=None) as bar:
            for piece in _rebatched(batches, self._extractor.preferred_batch_size):
                shape = piece.shape[1:]
                extracted.append(self._extractor(piece))
                bar.update(len(piece))
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
                continue  # of images, not of features
            elif metric == 'precision_recall':
                shares = precision_recall(self._real.features, features)._asdict()
                values |= shares
                labels |= {name: f'{name} ({self._extractor.name})' for name in shares}
            else:
                mean, spread = (
                    inception_score(logits)
                    if metric == 'inception_score'
                    else kernel_distance(features, self._real.features)
                )
                values |= {metric: mean, f'{metric}_std': spread}
                label = getattr(names, metric)
                labels |= {metric: label, f'{metric}_std': f'{label} std'}
        return values, labels

    @functools.cached_property
    def _real(self) -> reference_stats.Reference:
        return reference_stats.compute_reference(
            self._source,
            self._extractor,
            num_features=self._config.num_real,
            whole=self._given is None and 'frechet_distance' in self._asked,
        )

    @property
    def _compares(self) -> bool:
        """Whether with images of the split, not a file of statistics alone."""
        distance = 'frechet_distance' in self._asked and self._given is None
        return distance or bool(_OF_FEATURES & self._asked)

    @functools.cached_property
    def _fingerprint(self) -> str:
        return reference_stats.fingerprint(self._source)

    @property
    def _statistics(self) -> Statistics:
        return self._given or self._real.statistics

    def _protocol(self) -> dict[str, Any]:
        protocol = {}
        if self._compares:
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
        if 'frechet_distance' in self._asked:
            protocol['n_real'] = self._statistics.n
            if self._given is not None:
                protocol['reference'] = epath.Path(self._config.reference).name
                protocol['reference_sha256'] = _sha256(self._given)
        if _OF_FEATURES & self._asked:
            protocol['n_real_features'] = len(self._real.features)
        if 'kernel_distance' in self._asked:
            protocol['kernel_subsets'] = f'{SUBSETS} of {SUBSET_SIZE:,}'
        if 'inception_score' in self._asked:
            protocol['inception_score_splits'] = SPLITS
        if 'precision_recall' in self._asked:
            protocol['neighbors'] = NEIGHBORS
        if 'mode_coverage' in self._asked:
            protocol |= {
                'modes_of': _MODES_OF,
                'modes_max_rms': MAX_RMS,
                'modes_max_share': MAX_SHARE,
            }
        return protocol

    @staticmethod
    def _check_count(metric: str, count: int, what: str) -> None:
        if count < METRICS[metric].min_samples:
            raise UserError(
                f'{what} is {count}, and {metric} needs at least {METRICS[metric].min_samples}: '
                'have more images, or leave it out of config.evaluation.metrics'
            )


def write(folder: epath.Path, name: str, evaluation: Evaluation) -> epath.Path:
    """Writes an evaluation as JSON, whole: the values, then `labels` and `protocol`.

    Its file is `NAME_EXTRACTOR_N_HASH.json`, the hash that of metrics and protocol: another
    evaluation overwrites nothing.
    """
    protocol = evaluation.protocol
    said = json.dumps([sorted(evaluation.values), protocol], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    # A file's name has at most 255 bytes, be those of users as long.
    stem, extractor = (_short(part) for part in (name, protocol.get('extractor', 'modes')))
    path = folder / f'{stem}_{extractor}_{protocol["n_fake"]}_{digest}.json'
    content = evaluation.values | {'labels': evaluation.labels, 'protocol': evaluation.protocol}
    return write_atomic(path, f'{json.dumps(content, indent=2)}\n'.encode())


def _short(name: str) -> str:
    return name.encode(errors='replace')[:80].decode(errors='ignore')


def line(evaluation: Evaluation) -> str:
    """An evaluation in one line for the terminal."""
    values, labels, protocol = evaluation
    parts = []
    for name, value in values.items():
        if not name.endswith('_std'):
            spread = f' ± {values[f"{name}_std"]:.2g}' if f'{name}_std' in values else ''
            parts.append(f'{labels[name]}: {value:.4g}{spread}')
    against = protocol.get('reference') or f'{protocol.get("data_set")} {protocol.get("split")}'
    if 'n_real' in protocol:
        against = f'{protocol["n_real"]:,} of {against}'
    compared = f' against {against}' if 'reference' in protocol or 'data_set' in protocol else ''
    return f'{" | ".join(parts)} ({protocol["n_fake"]:,} images{compared})'


def _sha256(statistics: Statistics) -> str:
    """Of the numbers, whatever file they were in."""
    content = statistics.mu.tobytes() + statistics.sigma.tobytes() + str(statistics.n).encode()
    return hashlib.sha256(content).hexdigest()


def _rebatched(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same images in pieces of `size`; the last may be smaller."""
    left: list[np.ndarray] = []
    for batch in batches:
        left.append(batch)
        while sum(map(len, left)) >= size:
            joined = np.concatenate(left)
            yield joined[:size]
            left = [joined[size:]]
    if sum(map(len, left)):
        yield np.concatenate(left)


def _keeping(batches: Iterable[np.ndarray], kept: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The same batches, each added to `kept` as it goes by."""
    for batch in batches:
        kept.append(batch)
        yield batch

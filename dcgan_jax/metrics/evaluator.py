"""Evaluation of images against a data set."""

import functools
import hashlib
import json
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.metrics import extractors, reference_stats
from dcgan_jax.metrics.metric import Inputs, Need
from dcgan_jax.metrics.registry import METRICS
from dcgan_jax.metrics.statistics import Statistics
from dcgan_jax.runtime.batching import rebatch
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_json

_BATCH_SIZE = 64  # Batch size if there is no extractor.


class Evaluation(NamedTuple):
    """Results of an evaluation.

    Attributes:
        values: Results by name, and standard deviations by '<name>_std'.
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
            UserError: If the extractor, the reference or the split is invalid.
        """
        self._config, self._source = config, source
        self._metrics = [METRICS[name] for name in config.metrics]
        self._needs = functools.reduce(operator.or_, (metric.needs for metric in self._metrics))
        for metric in self._metrics:
            metric.check_source(source)
        self._extractor = self._given_statistics = None
        if Need.FEATURES in self._needs:
            self._extractor = extractors.load(
                config.extractor, config.inception_weights, config.batch_size
            )
            self._extractor.check(source.image_shape)
        if config.reference and Need.REAL_STATISTICS in self._needs:
            self._given_statistics = reference_stats.read_statistics(
                config.reference, self._extractor
            )
        if Need.REAL_FEATURES in self._needs:
            name = f'the number of images in {source.name} {source.split}'
            name = name if len(source) < config.num_real else 'config.evaluation.num_real'
            self._check_count(min(config.num_real, len(source)), name, Need.REAL_FEATURES)

    def __call__(
        self, batches: Iterable[np.ndarray], count: int, protocol: dict[str, Any]
    ) -> Evaluation:
        """Compute the metrics of `config.metrics`.

        Args:
            batches: Batches of images, each uint8 `[b, H, W, C]` for any b.
            count: Total number of images.
            protocol: JSON-serializable description of the images, e.g. step and seed.

        Raises:
            UserError: If there are too few images for a metric, or the extractor does not support
                them.
        """
        self.check(count)
        images, features, logits, shape = self._extract(batches, count)
        settings = self.settings
        if self._extractor is not None:
            settings |= {'image_shape': list(shape), 'gray_as_rgb': shape[2] == 1}
        if self._uses_split and shape[:2] != self._source.image_shape[:2]:
            logging.warning(
                'comparing images of %dx%d pixels with real images of %dx%d',
                *(*shape[1::-1], *self._source.image_shape[1::-1]),
            )
        needs_statistics = Need.REAL_STATISTICS in self._needs
        if needs_statistics:
            settings['singular_covariance'] = self._is_covariance_singular(*features.shape)
        inputs = Inputs(
            images,
            features,
            logits,
            self._real.features if Need.REAL_FEATURES in self._needs else None,
            self._statistics if needs_statistics else None,
        )
        values, labels = {}, {}
        for metric in self._metrics:
            values |= metric.compute(inputs)
            for name in metric.results:
                labels[name] = metric.label(name, self._extractor)
                if f'{name}_std' in values:
                    labels[f'{name}_std'] = f'{labels[name]} std'
        return Evaluation(values, labels, settings | {'num_samples': count} | protocol)

    def check(self, count: int) -> None:
        """Raise `UserError` if the number of images is too small for a metric."""
        self._check_count(count, 'the number of samples', ~Need(0))

    @property
    def settings(self) -> dict[str, Any]:
        """The part of the protocol that does not depend on the evaluated images."""
        protocol = {'metrics': sorted(self._config.metrics)}
        if self._uses_split:
            protocol |= {
                'data_set': self._source.name,
                'split': self._source.split,
                'data_sha256': self._source.digest,
                'real_image_shape': list(self._source.image_shape),
                **self._source.read_settings,
            }
        if self._extractor is not None:
            protocol |= {
                'extractor': self._extractor.name,
                'extractor_sha256': self._extractor.sha256,
                'resize': self._extractor.resize,
            }
        if Need.REAL_STATISTICS in self._needs:
            given = self._given_statistics
            protocol['num_real'] = len(self._source) if given is None else given.n
        if self._given_statistics is not None:
            protocol['reference'] = epath.Path(self._config.reference).name
            protocol['reference_sha256'] = _sha256(self._given_statistics)
        if Need.REAL_FEATURES in self._needs:
            protocol['num_real_features'] = min(self._config.num_real, len(self._source))
        for metric in self._metrics:
            protocol |= metric.settings
        return protocol

    def _extract(
        self, batches: Iterable[np.ndarray], count: int
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, tuple[int, int, int]]:
        """Return (images, features, logits, image shape (H, W, C)); arrays not needed are None."""
        size = self._extractor.preferred_batch_size if self._extractor else _BATCH_SIZE
        images, extracted, shape = [], [], None
        with tqdm(total=count, desc='Evaluating', unit='image', disable=None) as bar:
            for batch in rebatch(batches, size):
                shape = batch.shape[1:]
                if Need.IMAGES in self._needs:
                    images.append(batch)
                if self._extractor is not None:
                    extracted.append(self._extractor(batch))
                bar.update(len(batch))
        features, logits = map(np.concatenate, zip(*extracted, strict=True)) if extracted else (
            None, None
        )  # fmt: skip
        return np.concatenate(images) if images else None, features, logits, shape

    def _is_covariance_singular(self, count: int, dimension: int) -> bool:
        """Return whether a covariance is singular; if that of the real images is, log a warning."""
        num_real = self._statistics.n
        if num_real <= dimension:
            logging.warning(
                'only %d real images for %d feature dimensions: the Fréchet distance is strongly '
                'overestimated',
                *(num_real, dimension),
            )
        return min(count, num_real) <= dimension

    @functools.cached_property
    def _real(self) -> reference_stats.Reference:
        return reference_stats.compute_reference(
            self._source,
            self._extractor,
            num_features=self._config.num_real,
            with_statistics=self._uses_split_statistics,
        )

    @property
    def _uses_split_statistics(self) -> bool:
        return Need.REAL_STATISTICS in self._needs and self._given_statistics is None

    @property
    def _uses_split(self) -> bool:
        """Whether images of the split are used, rather than only a file of statistics."""
        return self._uses_split_statistics or Need.REAL_FEATURES in self._needs

    @property
    def _statistics(self) -> Statistics:
        return self._given_statistics or self._real.statistics

    def _check_count(self, count: int, name: str, needs: Need) -> None:
        """Raise `UserError` if a metric with one of `needs` needs more than `count` images."""
        for metric, config_name in zip(self._metrics, self._config.metrics, strict=True):
            if metric.needs & needs and count < metric.min_samples:
                raise UserError(
                    f'{name} is {count}, and {config_name} needs at least {metric.min_samples}: '
                    'use more images, or remove it from config.evaluation.metrics'
                )


def write(folder: epath.Path, name: str, evaluation: Evaluation) -> epath.Path:
    """Write an evaluation to `NAME_EXTRACTOR_N_HASH.json` and return the path.

    The hash is that of the protocol, so that different evaluations have different paths.
    """
    protocol = evaluation.protocol
    identity = json.dumps(protocol, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    # File names are limited to 255 bytes.
    stem, extractor = (_truncate(part) for part in (name, protocol.get('extractor', 'images')))
    path = folder / f'{stem}_{extractor}_{protocol["num_samples"]}_{digest}.json'
    content = evaluation.values | {'labels': evaluation.labels, 'protocol': evaluation.protocol}
    return write_json(path, content)


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
    if 'num_real' in protocol:
        reference = f'{protocol["num_real"]:,} of {reference}'
    against = f' against {reference}' if 'reference' in protocol or 'data_set' in protocol else ''
    return f'{" | ".join(parts)} ({protocol["num_samples"]:,} images{against})'


def _sha256(statistics: Statistics) -> str:
    """Return a hash of the values, independent of the file."""
    content = statistics.mu.tobytes() + statistics.sigma.tobytes() + str(statistics.n).encode()
    return hashlib.sha256(content).hexdigest()

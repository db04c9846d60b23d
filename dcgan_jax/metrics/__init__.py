"""Image metrics as functions of features and logits in float64, and feature extractors."""

from dcgan_jax.metrics.frechet import Moments, Statistics, frechet_distance, statistics
from dcgan_jax.metrics.inception_score import inception_score
from dcgan_jax.metrics.kernel_distance import kernel_distance
from dcgan_jax.metrics.mode_coverage import ModeCoverage, mode_coverage
from dcgan_jax.metrics.precision_recall import PrecisionRecall, precision_recall

__all__ = [
    'ModeCoverage',
    'Moments',
    'PrecisionRecall',
    'Statistics',
    'frechet_distance',
    'inception_score',
    'kernel_distance',
    'mode_coverage',
    'precision_recall',
    'statistics',
]

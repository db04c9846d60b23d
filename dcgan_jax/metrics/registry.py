"""The metrics of `config.evaluation.metrics`."""

from dcgan_jax.metrics import (
    frechet_distance,
    inception_score,
    kernel_distance,
    mode_coverage,
    precision_recall,
)

METRICS = {
    'frechet_distance': frechet_distance.METRIC,
    'kernel_distance': kernel_distance.METRIC,
    'inception_score': inception_score.METRIC,
    'precision_recall': precision_recall.METRIC,
    'mode_coverage': mode_coverage.METRIC,
}
METRIC_OF_RESULT = {result: name for name, metric in METRICS.items() for result in metric.results}
SMALLER_IS_BETTER = {name for metric in METRICS.values() for name in metric.smaller_is_better}

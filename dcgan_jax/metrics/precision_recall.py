"""Precision, recall, density and coverage, based on nearest neighbors in feature space.

Precision and recall: Kynkäänniemi et al. 2019 (arXiv:1904.06991, eq. 1-3). Density and coverage:
Naeem et al. 2020 (arXiv:2002.09797, eq. 4 and 6).
"""

from typing import NamedTuple

import numpy as np

from dcgan_jax.metrics import features as features_lib
from dcgan_jax.metrics.metric import Metric, Need

NUM_NEIGHBORS = 5
_BLOCK_SIZE = 1000  # Rows of distances that are computed at a time, to bound memory.


class PrecisionRecall(NamedTuple):
    """Precision, recall and coverage in [0, 1], and density, which may exceed 1.

    Attributes:
        precision: Fraction of fake samples within the ball of some real sample.
        recall: Fraction of real samples within the ball of some fake sample.
        density: Mean number of real balls that contain a fake sample, divided by the number of
            neighbors.
        coverage: Fraction of real samples whose ball contains some fake sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(
    real: np.ndarray, fake: np.ndarray, num_neighbors: int = NUM_NEIGHBORS
) -> PrecisionRecall:
    """Compare two sets of features.

    The ball of a sample reaches to its k-th nearest neighbor in the same set. Balls are open, as in
    the package prdc of Naeem et al., so that two equal sets have a density of 1.

    Args:
        real: Features of real samples, `[N1, D]`.
        fake: Features of fake samples, `[N2, D]`.
        num_neighbors: Number of neighbors k.

    Raises:
        UserError: If a set has no k-th neighbor, or features are not finite.
    """
    features_lib.check_pair(real, fake, minimum=num_neighbors + 1)
    real, fake = (np.asarray(features, np.float64) for features in (real, fake))
    real_radii, fake_radii = _radii(real, num_neighbors), _radii(fake, num_neighbors)
    num_balls = np.zeros(len(fake))  # Number of real balls that contain a fake sample.
    recalled = covered = 0
    for rows in _blocks(len(real)):
        distances = _squared_distances(real[rows], fake)
        inside = distances < real_radii[rows, None]
        num_balls += inside.sum(0)
        covered += inside.any(1).sum()
        recalled += (distances < fake_radii[None]).any(1).sum()
    return PrecisionRecall(
        precision=float((num_balls > 0).mean()),
        recall=float(recalled / len(real)),
        density=float(num_balls.mean() / num_neighbors),
        coverage=float(covered / len(real)),
    )


def _radii(features: np.ndarray, num_neighbors: int) -> np.ndarray:
    """Return the squared distance of each feature `[N, D]` to its k-th nearest neighbor, `[N]`."""
    result = np.empty(len(features))
    for rows in _blocks(len(features)):
        distances = _squared_distances(features[rows], features)
        # Index 0 is the sample itself.
        result[rows] = np.partition(distances, num_neighbors, axis=1)[:, num_neighbors]
    return result


def _blocks(count: int) -> list[slice]:
    starts = range(0, count, _BLOCK_SIZE)
    return [slice(start, min(start + _BLOCK_SIZE, count)) for start in starts]


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * (a @ b.T)
    return np.maximum(squares, 0, out=squares)


METRIC = Metric(
    compute=lambda inputs: precision_recall(inputs.real_features, inputs.features)._asdict(),
    results=PrecisionRecall._fields,
    needs=Need.FEATURES | Need.REAL_FEATURES,
    min_samples=NUM_NEIGHBORS + 1,
    label=lambda name, extractor: f'{name} ({extractor.name})',
    smaller_is_better=(),
    settings={'neighbors': NUM_NEIGHBORS},
)

"""Fidelity and diversity by nearest neighbors in feature space.

Precision and recall: Kynkäänniemi et al. 2019 (arXiv:1904.06991, eq. 1-3). Density and coverage:
Naeem et al. 2020 (arXiv:2002.09797, eq. 4 and 6).
"""

from typing import NamedTuple

import numpy as np

from dcgan_jax.metrics import features as features_lib

NEIGHBORS = 5
_ROWS = 1000  # distances are computed so many rows at a time, to bound memory


class PrecisionRecall(NamedTuple):
    """Shares of samples, each from 0 to 1 (density may exceed 1).

    Attributes:
        precision: of fakes within some real sample's ball.
        recall: of reals within some fake sample's ball.
        density: real balls that a fake lies in, on average, over the neighbors.
        coverage: of reals with a fake in their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(
    real: np.ndarray, fake: np.ndarray, neighbors: int = NEIGHBORS
) -> PrecisionRecall:
    """Compares features `[N, D]`; a sample's ball reaches to its k-th nearest of its own set.

    Balls are open, as in Naeem et al.'s package prdc: of two equal sets the density is 1.

    Args:
        real: features `[N1, D]`.
        fake: features `[N2, D]`.
        neighbors: k.

    Raises:
        UserError: a set has no k-th neighbor, or some features are not finite.
    """
    features_lib.check_pair(real, fake, least=neighbors + 1)
    real, fake = (np.asarray(features, np.float64) for features in (real, fake))
    real_radii, fake_radii = _radii(real, neighbors), _radii(fake, neighbors)
    in_real = np.zeros(len(fake))  # real balls around each fake
    recalled = covered = 0
    for rows in _blocks(len(real)):
        distances = _squared_distances(real[rows], fake)
        inside = distances < real_radii[rows, None]
        in_real += inside.sum(0)
        covered += inside.any(1).sum()
        recalled += (distances < fake_radii[None]).any(1).sum()
    return PrecisionRecall(
        precision=float((in_real > 0).mean()),
        recall=float(recalled / len(real)),
        density=float(in_real.mean() / neighbors),
        coverage=float(covered / len(real)),
    )


def _radii(features: np.ndarray, neighbors: int) -> np.ndarray:
    """Squared distance of each of `[N, D]` features to its k-th nearest other, `[N]`."""
    result = np.empty(len(features))
    for rows in _blocks(len(features)):
        distances = _squared_distances(features[rows], features)
        result[rows] = np.partition(distances, neighbors, axis=1)[:, neighbors]  # 0: itself
    return result


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS)]


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * (a @ b.T)
    return np.maximum(squares, 0, out=squares)

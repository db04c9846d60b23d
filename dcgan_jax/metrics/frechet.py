"""The Fréchet distance between two sets of features (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

On Inception features it is the FID.
"""

from typing import NamedTuple

import numpy as np
from absl import logging

from dcgan_jax.metrics import features as features_lib
from dcgan_jax.runtime.errors import UserError

_ROWS = 4096  # features in float64 at a time, to bound memory


class Statistics(NamedTuple):
    """Mean and covariance of features.

    Attributes:
        mu: mean, float64 `[D]`.
        sigma: covariance, float64 `[D, D]`, divided by n - 1.
        n: number of features.
    """

    mu: np.ndarray
    sigma: np.ndarray
    n: int


class Moments:
    """Gathers the statistics of features that come in pieces, without keeping them.

    Sums are of differences from the first piece's mean, so that nothing cancels.
    """

    def __init__(self):
        self._n = 0
        self._origin = self._sum = self._products = None

    def add(self, features: np.ndarray) -> None:
        """Adds features `[N, D]`.

        Raises:
            UserError: some are not finite.
        """
        features_lib.check(features, least=0)
        for start in range(0, len(features), _ROWS):
            piece = features[start : start + _ROWS].astype(np.float64)
            if self._origin is None:
                self._origin = piece.mean(0)
                self._sum = np.zeros_like(self._origin)
                self._products = np.zeros((len(self._origin),) * 2)
            piece -= self._origin
            self._n += len(piece)
            self._sum += piece.sum(0)
            self._products += piece.T @ piece

    def statistics(self) -> Statistics:
        """Mean and covariance of all that was added.

        Raises:
            UserError: that was fewer than two features.
        """
        if self._n < 2:
            raise UserError(f'{self._n} features have no covariance: give at least 2')
        if self._n <= len(self._sum):
            logging.warning(
                '%d samples for %d feature dimensions: their covariance is singular, and the '
                'Fréchet distance far too large; give more samples',
                *(self._n, len(self._sum)),
            )
        sigma = self._products - np.outer(self._sum, self._sum / self._n)
        return Statistics(self._origin + self._sum / self._n, sigma / (self._n - 1), self._n)


def statistics(features: np.ndarray) -> Statistics:
    """Mean and covariance of features `[N, D]`, in float64.

    Raises:
        UserError: fewer than two features, or some are not finite.
    """
    moments = Moments()
    moments.add(features)
    return moments.statistics()


def frechet_distance(
    mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), in float64.

    The trace of the root is the sum of the roots of the eigenvalues of A sigma2 A with
    A = sigma1^(1/2): that is symmetric, so there are no complex numbers to drop, nor anything to
    add to a singular covariance.

    Args:
        mu1: mean of the first set, `[D]`.
        sigma1: its covariance, `[D, D]`.
        mu2: mean of the second set.
        sigma2: its covariance.

    Returns:
        The distance, at least 0 but for rounding.

    Raises:
        UserError: the shapes don't fit together, or a number is not finite or too large.
    """
    mu1, sigma1, mu2, sigma2 = (np.asarray(a, np.float64) for a in (mu1, sigma1, mu2, sigma2))
    shapes = [array.shape for array in (mu1, sigma1, mu2, sigma2)]
    size = mu1.size
    if shapes != [(size,), (size, size)] * 2:
        raise UserError(f'means [D] and covariances [D, D] expected, got {shapes}')
    if not all(np.isfinite(array).all() for array in (mu1, sigma1, mu2, sigma2)):
        raise UserError('a mean or covariance is not finite: the features it comes from are broken')
    try:
        values, vectors = np.linalg.eigh(sigma1)
        root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
        product = np.linalg.eigvalsh(root @ sigma2 @ root)
    except np.linalg.LinAlgError as error:  # Their product is not finite.
        raise UserError(
            f'covariances of up to {max(np.abs(sigma1).max(), np.abs(sigma2).max()):.2g} have no '
            f'root ({error}): the features that they come from are broken'
        ) from error
    overlap = np.sqrt(np.clip(product, 0, None)).sum()
    return float(np.square(mu1 - mu2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * overlap)

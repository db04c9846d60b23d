"""Fréchet distance (Heusel et al. 2017, arXiv:1706.08500, eq. 6); FID with Inception features."""

from typing import NamedTuple

import numpy as np
from absl import logging

from dcgan_jax.metrics import features as features_lib
from dcgan_jax.runtime.errors import UserError

_CHUNK_SIZE = 4096  # Features that are converted to float64 at a time, to bound memory.


class Statistics(NamedTuple):
    """Mean and covariance of features.

    Attributes:
        mu: Mean, float64 `[D]`.
        sigma: Unbiased covariance, float64 `[D, D]`.
        n: Number of features.
    """

    mu: np.ndarray
    sigma: np.ndarray
    n: int


class Moments:
    """Accumulates the mean and covariance of features.

    The mean of the first chunk is subtracted from all features to avoid cancellation.
    """

    def __init__(self):
        self._n = 0
        self._origin = self._sum = self._products = None

    def add(self, features: np.ndarray) -> None:
        """Add features `[N, D]`.

        Raises:
            UserError: If they are not finite.
        """
        features_lib.check(features, minimum=0)
        for start in range(0, len(features), _CHUNK_SIZE):
            chunk = features[start : start + _CHUNK_SIZE].astype(np.float64)
            if self._origin is None:
                self._origin = chunk.mean(0)
                self._sum = np.zeros_like(self._origin)
                self._products = np.zeros((len(self._origin),) * 2)
            chunk -= self._origin
            self._n += len(chunk)
            self._sum += chunk.sum(0)
            self._products += chunk.T @ chunk

    def statistics(self) -> Statistics:
        """Return the statistics of all features that were added.

        Raises:
            UserError: If there are fewer than two features.
        """
        if self._n < 2:
            raise UserError(f'{self._n} features have no covariance: use at least 2')
        if self._n <= len(self._sum):
            logging.warning(
                '%d samples for %d feature dimensions: the covariance is singular, and the Fréchet '
                'distance strongly overestimated; use more samples',
                *(self._n, len(self._sum)),
            )
        sigma = self._products - np.outer(self._sum, self._sum / self._n)
        return Statistics(self._origin + self._sum / self._n, sigma / (self._n - 1), self._n)


def statistics(features: np.ndarray) -> Statistics:
    """Return the mean and covariance of features `[N, D]`, in float64.

    Raises:
        UserError: If there are fewer than two features, or they are not finite.
    """
    moments = Moments()
    moments.add(features)
    return moments.statistics()


def frechet_distance(
    mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
    """Compute |mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)) in float64.

    The trace of the square root is computed from the eigenvalues of the symmetric matrix
    sigma1^(1/2) sigma2 sigma1^(1/2), so singular covariances need no regularization.

    Args:
        mu1: Mean of the first set, `[D]`.
        sigma1: Covariance of the first set, `[D, D]`.
        mu2: Mean of the second set, `[D]`.
        sigma2: Covariance of the second set, `[D, D]`.

    Returns:
        The distance, at least 0 up to rounding.

    Raises:
        UserError: If shapes are inconsistent, or a value is not finite or too large.
    """
    mu1, sigma1, mu2, sigma2 = (np.asarray(a, np.float64) for a in (mu1, sigma1, mu2, sigma2))
    shapes = [array.shape for array in (mu1, sigma1, mu2, sigma2)]
    size = mu1.size
    if shapes != [(size,), (size, size)] * 2:
        raise UserError(f'means [D] and covariances [D, D] expected, got {shapes}')
    if not all(np.isfinite(array).all() for array in (mu1, sigma1, mu2, sigma2)):
        raise UserError('a mean or covariance is not finite: check the features')
    try:
        values, vectors = np.linalg.eigh(sigma1)
        root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
        product = np.linalg.eigvalsh(root @ sigma2 @ root)
    except np.linalg.LinAlgError as error:  # The product is not finite.
        raise UserError(
            f'covariances of up to {max(np.abs(sigma1).max(), np.abs(sigma2).max()):.2g} have no '
            f'square root ({error}): check the features'
        ) from error
    overlap = np.sqrt(np.clip(product, 0, None)).sum()
    return float(np.square(mu1 - mu2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * overlap)

"""Mean and covariance of features, in float64."""

from typing import NamedTuple

import numpy as np
from absl import logging

from dcgan_jax.metrics import features as features_lib
from dcgan_jax.runtime.errors import UserError

_CHUNK_SIZE = 4096  # Number of features converted to float64 at a time, to bound memory.


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
                'distance is strongly overestimated; use more samples',
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

"""Fréchet distance (Heusel et al. 2017, arXiv:1706.08500, eq. 6); FID with Inception features."""

import numpy as np

from dcgan_jax.metrics.metric import Inputs, Metric, Need
from dcgan_jax.metrics.statistics import statistics
from dcgan_jax.runtime.errors import UserError


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
        The distance, at least 0.

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
    distance = np.square(mu1 - mu2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * overlap
    return max(0.0, float(distance))  # Rounding errors can make it negative.


def _compute(inputs: Inputs) -> dict[str, float]:
    fake, real = statistics(inputs.features), inputs.real_statistics
    return {'frechet_distance': frechet_distance(fake.mu, fake.sigma, real.mu, real.sigma)}


METRIC = Metric(
    compute=_compute,
    results=('frechet_distance',),
    needs=Need.FEATURES | Need.REAL_STATISTICS,
    min_samples=2,
    label=lambda name, extractor: extractor.labels.frechet_distance,
    smaller_is_better=('frechet_distance',),
)

"""Kernel distance (Bińkowski et al. 2018, arXiv:1801.01401); KID with Inception features."""

import numpy as np

from dcgan_jax.metrics import features as features_lib
from dcgan_jax.metrics.metric import Inputs, Metric, Need

SUBSETS = 100
SUBSET_SIZE = 1000


def kernel_distance(
    features1: np.ndarray,
    features2: np.ndarray,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 2020,
) -> tuple[float, float]:
    """Compute the mean and standard deviation of the unbiased squared MMD over random subsets.

    The kernel is (x.y / D + 1)^3. The subsets are those of torch-fidelity for the same seed.

    Args:
        features1: Features of the first set, `[N1, D]`.
        features2: Features of the second set, `[N2, D]`.
        subsets: Number of subsets.
        subset_size: Number of features in a subset of each set, sampled without replacement.
        seed: Seed of the sampling.

    Returns:
        Mean and standard deviation over the subsets; the mean may be negative.

    Raises:
        UserError: If a set is smaller than a subset, or features are not finite.
    """
    features_lib.check_pair(features1, features2, minimum=subset_size)
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        first = features1[rng.choice(len(features1), subset_size, replace=False)]
        second = features2[rng.choice(len(features2), subset_size, replace=False)]
        values.append(squared_mmd(first, second))
    return float(np.mean(values)), float(np.std(values))


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the unbiased estimate for two sets of features `[M, D]` (eq. 4), in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    count = len(x)
    within = 0.0
    for z in (x, y):
        kernel = _kernel(z, z)
        within += (kernel.sum() - np.trace(kernel)) / (count * (count - 1))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base  # NumPy's ** 3 is as slow as the matrix product.


def _compute(inputs: Inputs) -> dict[str, float]:
    mean, std = kernel_distance(inputs.features, inputs.real_features)
    return {'kernel_distance': mean, 'kernel_distance_std': std}


METRIC = Metric(
    compute=_compute,
    results=('kernel_distance',),
    needs=Need.FEATURES | Need.REAL_FEATURES,
    min_samples=SUBSET_SIZE,
    label=lambda name, extractor: extractor.labels.kernel_distance,
    smaller_is_better=('kernel_distance',),
    settings={'kernel_num_subsets': SUBSETS, 'kernel_subset_size': SUBSET_SIZE},
)

"""How well scores tell two kinds apart."""

import numpy as np


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores higher than a negative.

    Ties count a half (Mann & Whitney 1947).

    Args:
        scores: `[N]`.
        positive: bool `[N]`, of both kinds.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: one kind is missing, or a score is not finite.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise ValueError('both kinds are needed')
    if not np.isfinite(scores).all():
        raise ValueError('scores must be finite')
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]  # from 1, ties share their mean
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2.0
    return float(wins / (positive.sum() * (~positive).sum()))

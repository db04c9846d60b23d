"""Receiver operating characteristic."""

import numpy as np


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the area under the ROC curve: P(a positive scores higher than a negative).

    Ties count one half (Mann & Whitney 1947).

    Args:
        scores: Scores, `[N]`.
        positive: Labels, bool `[N]`.

    Returns:
        A value in [0, 1].

    Raises:
        ValueError: If all labels are equal, or a score is not finite.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise ValueError('labels of both classes are required')
    if not np.isfinite(scores).all():
        raise ValueError('scores must be finite')
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]  # From 1; ties have their mean rank.
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2.0
    return float(wins / (positive.sum() * (~positive).sum()))

"""The Inception Score (Salimans et al. 2016, arXiv:1606.03498, section 4)."""

import numpy as np

from dcgan_jax.metrics import features as features_lib

SPLITS = 10


def inception_score(
    logits: np.ndarray, splits: int = SPLITS, seed: int = 2020
) -> tuple[float, float]:
    """exp(E[KL(p(y|x) || p(y))]): its mean and spread over parts of the samples.

    Args:
        logits: of a classifier, `[N, classes]`.
        splits: parts, of N / splits samples each after a shuffle (torch-fidelity's for this seed).
        seed: of the shuffle.

    Returns:
        Mean and standard deviation over the parts, each from 1 to the number of classes.

    Raises:
        UserError: fewer samples than parts, or some logits are not finite.
    """
    features_lib.check(logits, least=splits, what='logits')
    order = np.random.RandomState(seed).permutation(len(logits))
    scores = []
    for split in range(splits):
        rows = order[split * len(order) // splits : (split + 1) * len(order) // splits]
        log_p = _log_softmax(np.asarray(logits[rows], np.float64))
        p = np.exp(log_p)
        marginal = p.mean(0)
        # A class that no sample has adds nothing: 0 log(0 / 0) = 0.
        log_marginal = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
        scores.append(np.exp((p * (log_p - log_marginal)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

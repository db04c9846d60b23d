"""The Inception Score (Salimans et al. 2016, arXiv:1606.03498, section 4)."""

import numpy as np

from dcgan_jax.metrics import features as features_lib
from dcgan_jax.metrics.metric import Inputs, Metric, Need

SPLITS = 10


def inception_score(
    logits: np.ndarray, splits: int = SPLITS, seed: int = 2020
) -> tuple[float, float]:
    """Compute the mean and standard deviation of exp(E[KL(p(y|x) || p(y))]) over splits.

    Args:
        logits: Logits of a classifier, `[N, classes]`.
        splits: Number of splits, after a shuffle (identical to torch-fidelity's for this seed).
        seed: Seed of the shuffle.

    Returns:
        Mean and standard deviation over the splits, each from 1 to the number of classes.

    Raises:
        UserError: If there are fewer samples than splits, or some logits are not finite.
    """
    features_lib.check(logits, minimum=splits, name='logits')
    order = np.random.RandomState(seed).permutation(len(logits))
    scores = []
    for split in range(splits):
        rows = order[split * len(order) // splits : (split + 1) * len(order) // splits]
        log_p = _log_softmax(np.asarray(logits[rows], np.float64))
        p = np.exp(log_p)
        marginal = p.mean(0)
        # By convention, 0 log(0 / 0) = 0.
        log_marginal = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
        scores.append(np.exp((p * (log_p - log_marginal)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _compute(inputs: Inputs) -> dict[str, float]:
    mean, std = inception_score(inputs.logits)
    return {'inception_score': mean, 'inception_score_std': std}


METRIC = Metric(
    compute=_compute,
    results=('inception_score',),
    needs=Need.FEATURES,
    min_samples=SPLITS,
    label=lambda name, extractor: extractor.labels.inception_score,
    smaller_is_better=(),
    settings={'inception_score_splits': SPLITS},
)

"""A linear classifier on fixed features: how much a discriminator has learnt of classes."""

import numpy as np
import scipy.optimize
from tqdm import tqdm

_ITERATIONS = 200
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_HELD_OUT = 10  # one image in so many chooses the penalty


class LinearSVM:
    """One-against-all L2-SVMs: squared hinge loss and an L2 penalty, as Radford et al. 2015 use.

    Features are scaled to a standard deviation of 1 each by those of training.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, num_classes: int, penalty: float):
        """Fits by L-BFGS.

        Args:
            features: float32 `[N, D]`.
            labels: int `[N]` in [0, num_classes).
            num_classes: how many.
            penalty: weight of the squared norm beside the mean loss.
        """
        self._mean, deviation = features.mean(axis=0), features.std(axis=0)
        self._scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
        x = self._scaled(features)
        sides = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0).astype(np.float32)
        shape = (x.shape[1] + 1, num_classes)  # the last row is the bias

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape).astype(np.float32)
            slack = np.maximum(0.0, 1.0 - sides * (x @ weights[:-1] + weights[-1]))
            loss = np.square(slack, dtype=np.float64).sum() / len(x)
            loss += penalty * np.square(weights[:-1], dtype=np.float64).sum()
            slope = -2.0 / len(x) * sides * slack
            gradient = np.concatenate([x.T @ slope, slope.sum(axis=0, keepdims=True)])
            gradient[:-1] += 2.0 * penalty * weights[:-1]
            return loss, gradient.astype(np.float64).ravel()

        found = scipy.optimize.minimize(
            objective, np.zeros(shape).ravel(), jac=True, method='L-BFGS-B',
            options={'maxiter': _ITERATIONS},
        )  # fmt: skip
        self._weights = found.x.reshape(shape).astype(np.float32)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Classes int64 `[N]` of features `[N, D]`."""
        return np.argmax(self._scaled(features) @ self._weights[:-1] + self._weights[-1], axis=1)

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        return ((features - self._mean) * self._scale).astype(np.float32)


def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[LinearSVM, float]:
    """The classifier with the penalty that does best on a tenth held out, and that penalty."""
    held = np.arange(len(features)) % _HELD_OUT == 0
    scores = []
    fits = len(_PENALTIES) + 1
    with tqdm(total=fits, desc='Fitting', unit='fit', delay=3, disable=None) as bar:
        for penalty in _PENALTIES:
            svm = LinearSVM(features[~held], labels[~held], num_classes, penalty)
            scores.append(np.mean(svm(features[held]) == labels[held]))
            bar.update()
        best = _PENALTIES[int(np.argmax(scores))]
        svm = LinearSVM(features, labels, num_classes, best)
        bar.update()
    return svm, best

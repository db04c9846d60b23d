"""Linear probe: a linear classifier on fixed features."""

import numpy as np
import scipy.optimize
from tqdm import tqdm

_ITERATIONS = 200
_PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3)
_HELD_OUT = 10  # Every tenth image is held out to select the penalty.


class LinearSVM:
    """One-vs-all L2-SVMs (squared hinge loss with an L2 penalty) as in Radford et al. 2015.

    Features are standardized with the statistics of the training features.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        penalty: float,
        initial: 'LinearSVM | None' = None,
    ):
        """Fit the weights with L-BFGS.

        Args:
            features: Features, float32 `[N, D]`.
            labels: Classes, int `[N]` in [0, num_classes).
            num_classes: Number of classes.
            penalty: Weight of the squared norm relative to the mean loss.
            initial: Classifier whose weights are the initial ones; defaults to zeros.
        """
        self._mean, deviation = features.mean(axis=0), features.std(axis=0)
        self._scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
        x, basis = self._standardize(features), None
        if x.shape[1] > len(x):
            # The weights are combinations of the features (representer theorem): their coordinates
            # in an orthonormal basis of the features have fewer dimensions and the same norm.
            basis, coordinates = np.linalg.qr(x.T)
            x = coordinates.T
        targets = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0).astype(np.float32)
        shape = (x.shape[1] + 1, num_classes)  # The last row is the bias.

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape).astype(np.float32)
            slack = np.maximum(0.0, 1.0 - targets * (x @ weights[:-1] + weights[-1]))
            loss = np.square(slack, dtype=np.float64).sum() / len(x)
            loss += penalty * np.square(weights[:-1], dtype=np.float64).sum()
            slope = -2.0 / len(x) * targets * slack
            gradient = np.concatenate([x.T @ slope, slope.sum(axis=0, keepdims=True)])
            gradient[:-1] += 2.0 * penalty * weights[:-1]
            return loss, gradient.astype(np.float64).ravel()

        start = np.zeros(shape)
        if initial is not None:
            weights, start[-1] = initial._weights[:-1], initial._weights[-1]
            start[:-1] = weights if basis is None else basis.T @ weights
        result = scipy.optimize.minimize(
            objective, start.ravel(), jac=True, method='L-BFGS-B',
            options={'maxiter': _ITERATIONS},
        )  # fmt: skip
        weights = result.x.reshape(shape).astype(np.float32)
        if basis is not None:
            weights = np.concatenate([basis @ weights[:-1], weights[-1:]])
        self._weights = weights

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predict the classes, int64 `[N]`, of features `[N, D]`."""
        x = self._standardize(features)
        return np.argmax(x @ self._weights[:-1] + self._weights[-1], axis=1)

    def _standardize(self, features: np.ndarray) -> np.ndarray:
        return ((features - self._mean) * self._scale).astype(np.float32)


def has_several_classes(labels: np.ndarray) -> bool:
    """Return whether there are at least two classes; otherwise, accuracies are not informative."""
    return len(np.unique(labels)) > 1


def fit(features: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[LinearSVM, float]:
    """Fit a classifier and return it with its penalty, which is selected on held-out images.

    Penalties are tried in decreasing order until the accuracy decreases. Each fit starts from the
    weights of the previous one.
    """
    held_out = np.arange(len(features)) % _HELD_OUT == 0
    best, best_penalty, best_accuracy = None, _PENALTIES[0], -1.0
    with tqdm(total=len(_PENALTIES) + 1, desc='Fitting', unit='fit', delay=3, disable=None) as bar:
        for penalty in _PENALTIES:
            svm = LinearSVM(features[~held_out], labels[~held_out], num_classes, penalty, best)
            accuracy = np.mean(svm(features[held_out]) == labels[held_out])
            bar.update()
            if accuracy < best_accuracy:
                break
            best, best_penalty, best_accuracy = svm, penalty, accuracy
        svm = LinearSVM(features, labels, num_classes, best_penalty, best)
        bar.update()
    return svm, best_penalty

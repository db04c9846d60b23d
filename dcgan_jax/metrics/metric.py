"""Interface of the metrics; `dcgan_jax/metrics/registry.py` lists them."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.metrics.extractors import Extractor
from dcgan_jax.metrics.statistics import Statistics


class Need(enum.Flag):
    """Inputs of a metric; see `Inputs`."""

    IMAGES = enum.auto()
    FEATURES = enum.auto()  # Features and logits.
    REAL_FEATURES = enum.auto()
    REAL_STATISTICS = enum.auto()


class Inputs(NamedTuple):
    """Inputs of the metrics; an input is None if no metric needs it.

    Attributes:
        images: Generated images, uint8 `[N, H, W, C]`.
        features: Features of the generated images, float32 `[N, D]`.
        logits: Logits of the generated images, float32 `[N, classes]`.
        real_features: Features of `config.evaluation.num_real` real images, float32 `[M, D]`.
        real_statistics: Statistics of the features of all real images.
    """

    images: np.ndarray | None
    features: np.ndarray | None
    logits: np.ndarray | None
    real_features: np.ndarray | None
    real_statistics: Statistics | None


def _accept(source: ImageSource) -> None:
    del source


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of generated images.

    Attributes:
        compute: Function that returns results by name, and standard deviations by '<name>_std'.
        results: Names of the results.
        needs: Inputs that `compute` uses.
        min_samples: Minimum number of images, and of real images if their features are used.
        label: Function of (result name, extractor or None) that returns the display name.
        smaller_is_better: Results for which smaller is better; larger is better for the others.
        settings: JSON-serializable settings that the results depend on, for protocols.
        check_source: Function that raises `UserError` if the metric does not support a data set.
    """

    compute: Callable[[Inputs], dict[str, float]]
    results: tuple[str, ...]
    needs: Need
    min_samples: int
    label: Callable[[str, Extractor | None], str]
    smaller_is_better: tuple[str, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    check_source: Callable[[ImageSource], None] = _accept

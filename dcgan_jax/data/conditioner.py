"""Conditions of the networks: classes, or captions that describe classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data import captions


class Conditioner(NamedTuple):
    """Maps the classes of images to the conditions of both networks.

    A condition is the index of a class or, with text conditioning, of a caption. The captions of
    class c are `c * captions_per_class`, ..., `(c + 1) * captions_per_class - 1`.

    Attributes:
        classes: Classes that the run is trained on, in increasing order; empty if it is
            unconditional.
        captions_per_class: Number of captions of each class; 1 without text conditioning.
    """

    classes: tuple[int, ...]
    captions_per_class: int

    @classmethod
    def create(cls, config: ConfigDict, num_conditions: int) -> 'Conditioner':
        """Create the conditioner of a run.

        Args:
            config: The run's config, with indices in `data.classes` (see `replace_class_names`).
            num_conditions: Number of conditions of the networks, over all classes of the data set;
                0 if the run is unconditional.
        """
        captions_per_class = captions.captions_per_class(config)
        classes = config.data.classes or range(num_conditions // captions_per_class)
        return cls(tuple(sorted(set(classes))) if num_conditions else (), captions_per_class)

    @property
    def conditions(self) -> np.ndarray:
        """All conditions of `classes`, int32; `[0]`, which is ignored, if unconditional."""
        if not self.classes:
            return np.zeros(1, np.int32)
        first = self.first(np.asarray(self.classes, np.int32))
        return (first[:, None] + np.arange(self.captions_per_class, dtype=np.int32)).ravel()

    @property
    def default(self) -> int:
        """The condition used by tasks that need a single one: the first of `conditions`."""
        return int(self.conditions[0])

    def first(self, classes: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """Return the first condition of each class, int32."""
        return classes * self.captions_per_class

    def cycle(self, classes: np.ndarray) -> np.ndarray:
        """Return a condition for each class, int32 `[N]`, cycling through its captions."""
        occurrence = np.zeros_like(classes)
        for number in np.unique(classes):
            mask = classes == number
            occurrence[mask] = np.arange(np.sum(mask))
        return self.first(classes) + occurrence % self.captions_per_class

    def sample(self, key: jax.Array, classes: jax.Array) -> jax.Array:
        """Sample a condition for each of `classes`, int32 `[B]`."""
        shift = jax.random.randint(key, classes.shape, 0, self.captions_per_class, classes.dtype)
        return self.first(classes) + shift

    def sample_mismatched(self, key: jax.Array, classes: jax.Array) -> jax.Array:
        """Sample a condition of a different class for each of `classes`, int32 `[B]`.

        All other classes of `self.classes` are equally likely. At least two classes are required.
        """
        class_key, condition_key = jax.random.split(key)
        trained = np.asarray(self.classes, np.int32)
        number = jnp.argmax(classes[:, None] == trained[None], axis=1).astype(classes.dtype)
        shift = jax.random.randint(class_key, classes.shape, 1, len(trained), classes.dtype)
        others = jnp.asarray(trained)[(number + shift) % len(trained)]
        return self.sample(condition_key, others)

"""What a discriminator sees in images: its activations as vectors."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dcgan_jax import images
from dcgan_jax.models import Discriminator, Networks
from dcgan_jax.train_state import GANState

_BATCH = 100


class Representation:
    """Activations of all stages of a state's D, each map max-pooled to a few positions.

    With 4 positions a side it is what Radford et al. 2015 classify by (section 5.1). D is in
    evaluation mode, so that images don't depend on each other; class 0 where there are classes.
    """

    def __init__(self, networks: Networks, state: GANState, side: int = 4):
        """For maps pooled to `side` x `side` (or left as they are, if smaller)."""
        discriminator = state.discriminator
        self._variables = {'params': discriminator.params, **discriminator.statistics}
        self._vectors = jax.jit(functools.partial(vectors, networks.discriminator, side=side))

    def __call__(self, pixels: np.ndarray, title: str = 'Looking') -> np.ndarray:
        """uint8 `[N, H, W, C]` to float32 `[N, D]`."""
        found = []
        with tqdm(total=len(pixels), desc=title, unit='image', delay=3, disable=None) as bar:
            for start in range(0, len(pixels), _BATCH):
                piece = pixels[start : start + _BATCH]
                padded = np.pad(piece, ((0, _BATCH - len(piece)), *[(0, 0)] * 3))
                found.append(np.asarray(self._vectors(self._variables, padded))[: len(piece)])
                bar.update(len(piece))
        return np.concatenate(found)


def vectors(judge: Discriminator, variables: Any, pixels: jax.Array, side: int) -> jax.Array:
    """The activations of uint8 images `[B, H, W, C]` as float32 `[B, D]`, D unpacked."""
    # Packed discriminators judge several images as one: here each with itself.
    real = jnp.repeat(images.to_float(pixels), judge.pack, axis=0)
    labels = jnp.zeros(len(real), jnp.int32)
    _, seen = judge.apply(variables, real, labels, train=False, mutable=['intermediates'])
    maps = jax.tree.leaves(seen['intermediates'])
    return jnp.concatenate([_pooled(x, side).reshape(len(pixels), -1) for x in maps], axis=1)


def _pooled(x: jax.Array, side: int) -> jax.Array:
    """[B, h, w, c] max-pooled to [B, side, side, c]; what a window can't cover evenly is cut."""
    size = min(x.shape[1:3])
    if size <= side:
        return x.astype(jnp.float32)
    window = size // side
    x = x[:, : side * window, : side * window].astype(jnp.float32)
    return jnp.max(x.reshape(len(x), side, window, side, window, -1), axis=(2, 4))

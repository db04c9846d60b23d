"""What a discriminator sees in images: its activations as vectors, and its logits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax.data import images
from dcgan_jax.models import Discriminator, Networks
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.train_state import GANState

_BATCH = 100


class DiscriminatorFeatures:
    """Activations of all stages of a state's D, each map max-pooled to a few positions.

    With 4 positions a side it is what Radford et al. 2015 classify by (section 5.1). D is in
    evaluation mode, so that images don't depend on each other; class 0 where there are classes.
    """

    def __init__(self, networks: Networks, state: GANState, side: int = 4):
        """For maps pooled to `side` x `side` (or left as they are, if smaller)."""
        self._variables = _variables(state)
        self._vectors = jax.jit(
            functools.partial(vectors, unpacked(networks.discriminator), side=side)
        )

    def __call__(self, pixels: np.ndarray, title: str = 'Looking') -> np.ndarray:
        """uint8 `[N, H, W, C]` to float32 `[N, D]`."""
        return map_batches(functools.partial(self._vectors, self._variables), _BATCH, title, pixels)


def logits(
    networks: Networks, state: GANState, pixels: np.ndarray, labels: np.ndarray | None = None
) -> np.ndarray:
    """D's logits, float32 `[N]`, of images uint8 `[N, H, W, C]`; the larger, the more real.

    Args:
        networks: of the run.
        state: of the run.
        pixels: the images.
        labels: their classes or captions, int32 `[N]`; 0 where None.
    """
    module = unpacked(networks.discriminator)

    @jax.jit
    def of_piece(variables: Any, part: jax.Array, labels: jax.Array) -> jax.Array:
        # Packed discriminators judge several images as one: here each with itself.
        shown = jnp.repeat(images.to_float(part), module.pack, axis=0)
        condition = jnp.repeat(labels, module.pack)
        return module.apply(variables, shown, condition, train=False)[:, 0]

    labels = np.zeros(len(pixels), np.int32) if labels is None else labels
    apply = functools.partial(of_piece, _variables(state))
    return map_batches(apply, _BATCH, 'Judging', pixels, labels)


def rotation_losses(networks: Networks, state: GANState, pixels: np.ndarray) -> np.ndarray:
    """Cross-entropy of D's rotation prediction, float32 `[N]`.

    The mean over four rotations of -log Q(rotation | rotated image), in a run with
    `config.loss.rotation`
    (Golan & El-Yaniv 2018, arXiv:1805.10917; Hendrycks et al. 2019, arXiv:1906.12340).

    Args:
        networks: of the run.
        state: of the run.
        pixels: images, uint8 `[N, S, S, C]`.
    """
    module = unpacked(networks.discriminator)

    @jax.jit
    def of_piece(variables: Any, part: jax.Array) -> jax.Array:
        total = jnp.zeros(len(part))
        labels = jnp.zeros(len(part), jnp.int32)
        for num_rot90 in range(4):
            rotated = jnp.rot90(images.to_float(part), num_rot90, axes=(1, 2))
            _, seen = module.apply(variables, rotated, labels, train=False, mutable=['rotation'])
            (logits,) = seen['rotation']['logits']
            total -= jax.nn.log_softmax(logits)[:, num_rot90]
        return total / 4

    return map_batches(functools.partial(of_piece, _variables(state)), _BATCH, 'Turning', pixels)


def unpacked(module: Discriminator) -> Discriminator:
    """The same D, which compares no images with each other: in training it does by groups.

    With `minibatch_stddev` the added channel is then that of a group of one image, near 0, which D
    never saw in training: its logits and features of single images are less reliable than those of
    a D without it.
    """
    return module.clone(minibatch_stddev=min(module.minibatch_stddev, 1))


def _variables(state: GANState) -> Any:
    return {'params': state.discriminator.params, **state.discriminator.statistics}


def vectors(
    discriminator: Discriminator, variables: Any, pixels: jax.Array, side: int
) -> jax.Array:
    """The activations of uint8 images `[B, H, W, C]` as float32 `[B, D]`, D unpacked."""
    real = jnp.repeat(images.to_float(pixels), discriminator.pack, axis=0)
    labels = jnp.zeros(len(real), jnp.int32)
    _, seen = discriminator.apply(variables, real, labels, train=False, mutable=['intermediates'])
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

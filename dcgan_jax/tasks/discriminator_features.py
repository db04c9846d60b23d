"""Features, logits and rotation losses of a trained discriminator."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax.data import images
from dcgan_jax.models import Discriminator, Networks
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.train_state import GANState

_BATCH_SIZE = 100


class DiscriminatorFeatures:
    """Activations of all stages of the discriminator, max-pooled to a fixed size.

    If pooled to 4x4, these are the features that Radford et al. 2015 classify (section 5.1). D runs
    in evaluation mode, with label 0 in conditional runs.
    """

    def __init__(self, networks: Networks, state: GANState, side: int = 4):
        """Initialize with maps pooled to `side` x `side`; smaller maps are not pooled."""
        self._variables = state.discriminator.variables
        self._extract = jax.jit(
            functools.partial(extract, per_image_discriminator(networks.discriminator), side=side)
        )

    def __call__(self, pixels: np.ndarray, title: str = 'Features') -> np.ndarray:
        """Return features, float32 `[N, D]`, of images, uint8 `[N, H, W, C]`."""
        extract = functools.partial(self._extract, self._variables)
        return map_batches(extract, _BATCH_SIZE, title, pixels)


def logits(
    networks: Networks, state: GANState, pixels: np.ndarray, labels: np.ndarray | None = None
) -> np.ndarray:
    """Return D's logits, float32 `[N]`.

    Args:
        networks: Networks of the run.
        state: State of the run.
        pixels: Images, uint8 `[N, H, W, C]`.
        labels: Classes or captions, int32 `[N]`; defaults to 0.
    """
    labels = np.zeros(len(pixels), np.int32) if labels is None else labels
    apply = functools.partial(_score, networks.discriminator, state.discriminator.variables)
    return map_batches(apply, _BATCH_SIZE, 'Logits', pixels, labels)


def score(
    discriminator: Discriminator, variables: Any, pixels: jax.Array, labels: jax.Array
) -> jax.Array:
    """Return D's logits, float32 `[B]`, of images, uint8 `[B, H, W, C]`, and labels `[B]`."""
    module = per_image_discriminator(discriminator)
    inputs = jnp.repeat(images.to_float(pixels), module.pack, axis=0)
    labels = jnp.repeat(labels, module.pack)
    return module.apply(variables, inputs, labels, train=False)[:, 0]


_score = jax.jit(score, static_argnums=0)  # Compiled once for each discriminator.


def rotation_losses(networks: Networks, state: GANState, pixels: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of D's rotation prediction, float32 `[N]`.

    This is the mean over four rotations of -log Q(rotation | rotated image), for a run with
    `config.loss.rotation_weight` (Golan & El-Yaniv 2018, arXiv:1805.10917; Hendrycks et al. 2019,
    arXiv:1906.12340).

    Args:
        networks: Networks of the run.
        state: State of the run.
        pixels: Images, uint8 `[N, S, S, C]`.
    """
    module = per_image_discriminator(networks.discriminator)

    @jax.jit
    def apply(variables: Any, batch: jax.Array) -> jax.Array:
        total = jnp.zeros(len(batch))
        labels = jnp.zeros(len(batch), jnp.int32)
        for num_rot90 in range(4):
            rotated = jnp.rot90(images.to_float(batch), num_rot90, axes=(1, 2))
            _, sown = module.apply(variables, rotated, labels, train=False, mutable=['rotation'])
            (logits,) = sown['rotation']['logits']
            total -= jax.nn.log_softmax(logits)[:, num_rot90]
        return total / 4

    apply = functools.partial(apply, state.discriminator.variables)
    return map_batches(apply, _BATCH_SIZE, 'Rotations', pixels)


def per_image_discriminator(module: Discriminator) -> Discriminator:
    """Return D with logits and features that depend on a single image only.

    The minibatch standard deviation becomes that of a single image, which is near 0. D was not
    trained with such values, so its logits and features are less reliable than those of a D without
    minibatch standard deviation.
    """
    return module.clone(minibatch_stddev=min(module.minibatch_stddev, 1))


def feature_maps(
    discriminator: Discriminator, variables: Any, inputs: jax.Array
) -> list[jax.Array]:
    """Return the feature maps of D's stages in inference mode.

    Args:
        discriminator: A discriminator from `per_image_discriminator`.
        variables: Its variables.
        inputs: Images in [-1, 1], float32 `[B, H, W, C]`.

    Returns:
        A float32 array `[B, h, w, c]` for each stage. It does not depend on labels.
    """
    # A packed discriminator receives copies of the same image.
    packed = jnp.repeat(inputs, discriminator.pack, axis=0)
    labels = jnp.zeros(len(packed), jnp.int32)
    _, sown = discriminator.apply(variables, packed, labels, train=False, mutable=['intermediates'])
    stages = sown['intermediates']
    return [stages[f'stage_{index}'][0].astype(jnp.float32) for index in range(len(stages))]


def extract(
    discriminator: Discriminator, variables: Any, pixels: jax.Array, side: int
) -> jax.Array:
    """Return the pooled activations, float32 `[B, D]`, of images, uint8 `[B, H, W, C]`."""
    maps = feature_maps(discriminator, variables, images.to_float(pixels))
    return jnp.concatenate([_max_pool(x, side).reshape(len(pixels), -1) for x in maps], axis=1)


def _max_pool(x: jax.Array, side: int) -> jax.Array:
    """Max-pool `[B, h, w, c]` to `[B, side, side, c]`; remaining rows and columns are cropped."""
    size = min(x.shape[1:3])
    if size <= side:
        return x.astype(jnp.float32)
    window = size // side
    x = x[:, : side * window, : side * window].astype(jnp.float32)
    return jnp.max(x.reshape(len(x), side, window, side, window, -1), axis=(2, 4))

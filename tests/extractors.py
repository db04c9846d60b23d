"""Tiny feature extractors, serialized by `jax.export`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

DIMENSION, CLASSES = 6, 4


def weights(size):
    rng = np.random.default_rng(1)
    return rng.normal(size=(size * size * 3, DIMENSION + CLASSES)) / size


def reference(images):
    """Return (features, logits) of the extractor of `write_artifact`, in float64 by NumPy."""
    pixels = images.reshape(len(images), -1).astype(np.float64) / 255
    out = np.tanh(pixels @ weights(images.shape[1]))
    return out[:, :DIMENSION], out[:, DIMENSION:]


def _apply(images):
    matrix = jnp.asarray(weights(images.shape[1]), jnp.float32)
    pixels = images.astype(jnp.float32).reshape(images.shape[0], -1) / 255
    out = jnp.tanh(pixels @ matrix)
    return out[:, :DIMENSION], out[:, DIMENSION:]


def serialized(function=_apply, shape='b, 8, 8, 3', dtype=jnp.uint8):
    argument = jax.ShapeDtypeStruct(export.symbolic_shape(shape), dtype)
    return bytes(export.export(jax.jit(function), platforms=['cpu'])(argument).serialize())


def write_artifact(path, **arguments):
    path.write_bytes(serialized(**arguments))
    return path

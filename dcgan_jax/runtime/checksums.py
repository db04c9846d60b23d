"""Checksums of the arrays of a checkpoint."""

from typing import Any

import flax
import jax
import jax.numpy as jnp


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """Flatten nested dicts to a dict keyed by path, e.g. 'generator/params/project/kernel'."""
    return flax.traverse_util.flatten_dict(tree, sep='/')


@jax.jit
def compute(tree: dict[str, Any]) -> dict[str, jax.Array]:
    """Return the checksum of each leaf, keyed by path; see `checksum`."""
    return {name: checksum(leaf) for name, leaf in flatten(tree).items()}


def checksum(leaf: jax.Array) -> jax.Array:
    """Return a checksum (uint32 scalar) of an array of any dtype, independent of its sharding.

    The words of the array have odd weights, so that a change of any single word changes the
    checksum.
    """
    unsigned = jnp.dtype(f'uint{8 * leaf.dtype.itemsize}')
    words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).reshape(-1)
    weights = 2 * jax.lax.iota(jnp.uint32, words.size) + 1
    return jnp.sum(words * weights, dtype=jnp.uint32)

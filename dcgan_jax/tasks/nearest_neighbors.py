"""Nearest neighbours by brute force, in blocks that bound memory."""

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

_BLOCK = 4096  # rows compared at a time


def nearest(queries: np.ndarray, known: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances and indices `[N, count]` of the nearest rows of `known` to each query.

    Args:
        queries: float32 `[N, D]`.
        known: float32 `[M, D]`, M at least `count`.
        count: how many.

    Returns:
        Nearest first. Distances are those of float32 squares: good to 1e-3 of the norms.
    """
    queries = jnp.asarray(queries)
    squares = jnp.sum(queries**2, axis=1, keepdims=True)
    best, where = [], []
    blocks = range(0, len(known), _BLOCK)
    for start in tqdm(blocks, 'Neighbours', unit='block', delay=3, disable=None):
        block = jnp.asarray(known[start : start + _BLOCK])
        # GPUs and TPUs multiply float32 with 8 to 11 significant bits unless told otherwise, which
        # the difference of large squares would not survive.
        products = jnp.matmul(queries, block.T, precision=jax.lax.Precision.HIGHEST)
        apart = np.asarray(squares - 2.0 * products + jnp.sum(block**2, axis=1)[None])
        order = np.argsort(apart, axis=1)[:, :count]
        best.append(np.take_along_axis(apart, order, axis=1))
        where.append(order + start)
    apart, where = np.concatenate(best, axis=1), np.concatenate(where, axis=1)
    order = np.argsort(apart, axis=1, kind='stable')[:, :count]
    apart = np.take_along_axis(apart, order, axis=1)
    return np.sqrt(np.maximum(apart, 0.0)), np.take_along_axis(where, order, axis=1)

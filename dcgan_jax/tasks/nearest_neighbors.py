"""Brute-force nearest neighbors, computed in blocks to bound memory."""

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

_BLOCK_SIZE = 4096


def nearest(queries: np.ndarray, known: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows of `known` that are nearest to each query in Euclidean distance.

    Args:
        queries: Queries, float32 `[N, D]`.
        known: Candidates, float32 `[M, D]`, with M at least `count`.
        count: Number of neighbors.

    Returns:
        Distances and indices, `[N, count]`, nearest first. Distances are computed from float32
        squares and are accurate to 1e-3 of the norms.
    """
    queries = jnp.asarray(queries)
    squares = jnp.sum(queries**2, axis=1, keepdims=True)
    best, best_indices = [], []
    blocks = range(0, len(known), _BLOCK_SIZE)
    for start in tqdm(blocks, 'Neighbors', unit='block', delay=3, disable=None):
        block = jnp.asarray(known[start : start + _BLOCK_SIZE])
        # By default, GPUs and TPUs multiply float32 values with 8 to 11 significant bits, which are
        # too few for the difference of large squares.
        products = jnp.matmul(queries, block.T, precision=jax.lax.Precision.HIGHEST)
        distances = np.asarray(squares - 2.0 * products + jnp.sum(block**2, axis=1)[None])
        order = np.argsort(distances, axis=1)[:, :count]
        best.append(np.take_along_axis(distances, order, axis=1))
        best_indices.append(order + start)
    distances, indices = np.concatenate(best, axis=1), np.concatenate(best_indices, axis=1)
    order = np.argsort(distances, axis=1, kind='stable')[:, :count]
    distances = np.take_along_axis(distances, order, axis=1)
    return np.sqrt(np.maximum(distances, 0.0)), np.take_along_axis(indices, order, axis=1)

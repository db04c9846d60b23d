"""Batches of arrays of a fixed size, for jitted functions."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm


def map_batches(
    function: Callable[..., Any], batch_size: int, title: str, *arrays: np.ndarray, delay: float = 3
) -> Any:
    """Apply a function to arrays in batches of the same size.

    Args:
        function: Function from one array `[B, ...]` per argument to a pytree of such arrays. Each
            row of the output must depend only on the same row of the inputs.
        batch_size: Largest number of rows of a batch. The last of several batches is padded with
            its last row.
        title: Title of the progress bar.
        *arrays: Arrays `[N, ...]` with N at least 1.
        delay: Number of seconds after which the progress bar is shown.

    Returns:
        Pytree of NumPy arrays `[N, ...]`.
    """
    total, outputs = len(arrays[0]), []
    batch_size = min(batch_size, total)
    with tqdm(total=total, desc=title, unit='image', delay=delay, disable=None) as bar:
        for start in range(0, total, batch_size):
            batches = [array[start : start + batch_size] for array in arrays]
            count = len(batches[0])
            padded = [
                np.pad(batch, ((0, batch_size - count), *[(0, 0)] * (batch.ndim - 1)), mode='edge')
                for batch in batches
            ]
            output = function(*padded)
            outputs.append(jax.tree.map(lambda x, count=count: np.asarray(x)[:count], output))
            bar.update(count)
    return jax.tree.map(lambda *rows: np.concatenate(rows), *outputs)


def rebatch(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the same images in batches of `size`; the last batch may be smaller."""
    buffer: list[np.ndarray] = []
    for batch in batches:
        buffer.append(batch)
        while sum(map(len, buffer)) >= size:
            joined = np.concatenate(buffer)
            yield joined[:size]
            buffer = [joined[size:]]
    if sum(map(len, buffer)):
        yield np.concatenate(buffer)

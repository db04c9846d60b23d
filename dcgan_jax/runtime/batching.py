"""Many images through a function that is compiled for few."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm


def map_batches(
    function: Callable[..., Any], size: int, title: str, *arrays: np.ndarray, delay: float = 3
) -> Any:
    """Applies a function to pieces of arrays, all of one size.

    Args:
        function: of as many arrays `[size, ...]` as are given, to a pytree of arrays
            `[size, ...]`, whose rows depend on the same row of what it gets alone.
        size: of a piece; the last one is filled by repeating its last row.
        title: of the progress bar.
        *arrays: `[N, ...]`, N at least 1.
        delay: seconds before the bar is shown.

    Returns:
        The function's pytree, of NumPy arrays `[N, ...]`.
    """
    total, found = len(arrays[0]), []
    with tqdm(total=total, desc=title, unit='image', delay=delay, disable=None) as bar:
        for start in range(0, total, size):
            parts = [array[start : start + size] for array in arrays]
            count = len(parts[0])
            padded = [
                np.pad(part, ((0, size - count), *[(0, 0)] * (part.ndim - 1)), mode='edge')
                for part in parts
            ]
            made = function(*padded)
            found.append(jax.tree.map(lambda rows, count=count: np.asarray(rows)[:count], made))
            bar.update(count)
    return jax.tree.map(lambda *rows: np.concatenate(rows), *found)

"""Batches on the devices: indices into a split that lives there, or a stream of images."""

import contextlib
from collections.abc import Generator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import data
from dcgan_jax import mesh as mesh_lib


def feed(
    config: ConfigDict, mesh: Mesh, source: data.ImageSource, ranges: Sequence[tuple[int, int]]
) -> tuple[jax.Array | None, Generator[jax.Array, None, None]]:
    """What `compiled.train_call` takes beside the state, for the calls of `ranges`.

    Args:
        config: of the run.
        mesh: of the run.
        source: the training split.
        ranges: (first step, end) of each call.

    Returns:
        The split uint8 `[N, H, W, C]` on every device with batches int32 `[K, B]`, or None with
        batches uint8 `[K, B, H, W, C]`; the same images either way. Close the batches to end
        before the last.
    """
    placed = mesh_lib.sharded(mesh, axis=1)
    if data.fits_on_device(source, config.data.placement, config.data.device_limit_bytes):
        split = jax.device_put(data.load_split(source), mesh_lib.replicated(mesh))
        indices = (
            data.batch_indices(config.seed, first, config.batch_size, len(source), end - first)
            for first, end in ranges
        )
        return split, (jax.device_put(batch, placed) for batch in indices)
    # Each process reads the rows of its own devices.
    share = config.batch_size // jax.process_count()
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    pixels = data.stream(source, config.seed, ranges, config.batch_size, rows)
    return None, _place(pixels, placed)


def _place(
    pixels: Generator[np.ndarray, None, None], placed: jax.sharding.Sharding
) -> Generator[jax.Array, None, None]:
    with contextlib.closing(pixels):  # Its threads end with it.
        for rows in pixels:
            yield jax.make_array_from_process_local_data(placed, rows)

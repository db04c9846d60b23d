"""Batches on the devices: indices into a split that lives there, or a stream of images."""

import contextlib
from collections.abc import Generator, Sequence

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax.data import input_pipeline, sources
from dcgan_jax.data.sources import Examples
from dcgan_jax.runtime import sharding


def feed(
    config: ConfigDict, mesh: Mesh, source: sources.ImageSource, ranges: Sequence[tuple[int, int]]
) -> tuple[Examples | None, Generator[jax.Array | Examples, None, None]]:
    """What `parallel.train_call` takes beside the state, for the calls of `ranges`.

    Args:
        config: of the run.
        mesh: of the run.
        source: the training split.
        ranges: (first step, end) of each call.

    Returns:
        The split, images uint8 `[N, H * W * C]`, on every device with batches int32 `[K, B]` of
        indices into it, or None with batches of images uint8 `[K, B, H, W, C]`; the same images
        either way. B is all that a step takes: `batch_size` times `discriminator_steps`. Labels
        int32 `[N]` or `[K, B]` come with the images of conditional runs. Close the batches to end
        before the last.

    Raises:
        UserError: labels are needed, and the split has none.
    """
    if config.conditional:
        source.require_labels()
    taken = config.batch_size * max(config.discriminator_steps, 1)
    placed = sharding.sharded(mesh, axis=1)
    if input_pipeline.fits_on_device(source, config.data.placement, config.data.device_limit_bytes):
        everywhere = sharding.replicated(mesh)
        examples = input_pipeline.load_split(source, config.conditional)
        examples = examples._replace(images=examples.images.reshape(len(source), -1))
        split = jax.tree.map(lambda array: sharding.place(array, everywhere), examples)
        indices = (
            input_pipeline.batch_indices(config.seed, first, taken, len(source), end - first)
            for first, end in ranges
        )
        return split, (sharding.place(batch, placed) for batch in indices)
    # Each process reads the rows of its own devices.
    share = taken // jax.process_count()
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    batches = input_pipeline.stream(
        source, config.seed, ranges, taken, rows, labels=config.conditional
    )
    return None, _place(batches, placed)


def _place(
    batches: Generator[Examples, None, None], placed: jax.sharding.Sharding
) -> Generator[Examples, None, None]:
    with contextlib.closing(batches):  # Its threads end with it.
        for batch in batches:
            yield jax.tree.map(
                lambda rows: jax.make_array_from_process_local_data(placed, rows), batch
            )

"""Input pipeline: batches of a split that is held on the devices or streamed.

The order of the images is a function of (seed, step). The training images form an infinite sequence
of epochs, each of which is a new permutation; batches may span epochs, and no image is dropped.
Resumed runs and runs on more devices therefore use the same batches.
"""

import contextlib
import functools
from collections.abc import Generator, Sequence

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax.data.image_source import Examples, ImageSource
from dcgan_jax.runtime import sharding

_CHUNK = 1000  # Images read between two updates of the progress bar.
PLACEMENTS = ('auto', 'device', 'stream')


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order of the images in an epoch: a read-only permutation of range(n), int64 [n].

    The permutation ranks the outputs of Philox (Salmon et al. 2011, SC11) keyed by (seed, epoch).
    Unlike NumPy's `permutation`, these outputs are the same in every version of NumPy.
    """
    keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    order = np.argsort(keys, kind='stable')
    order.flags.writeable = False
    return order


def batch_indices(
    seed: int, step: int, batch_size: int, n: int, num_batches: int = 1
) -> np.ndarray:
    """Return the indices of the images in the batches of steps [step, step + num_batches).

    Image j of batch t is image p = t * batch_size + j of the infinite sequence, which is
    `epoch_order(seed, p // n, n)[p % n]`.

    Args:
      seed: Seed of the run, at least 0.
      step: First step, from 0.
      batch_size: Images per batch; may be more than n.
      n: Number of images in the data set.
      num_batches: Number of steps.

    Returns:
      int32 [num_batches, batch_size] in [0, n).
    """
    positions = step * batch_size + np.arange(num_batches * batch_size, dtype=np.int64)
    epochs, offsets = np.divmod(positions, n)
    indices = np.empty(len(positions), np.int32)
    for epoch in range(epochs[0], epochs[-1] + 1):
        in_epoch = epochs == epoch
        indices[in_epoch] = epoch_order(seed, epoch, n)[offsets[in_epoch]]
    return indices.reshape(num_batches, batch_size)


def is_device_resident(source: ImageSource, placement: str, limit_bytes: int) -> bool:
    """Return whether to store the split in device memory (True) or to stream it (False).

    Args:
      source: The split.
      placement: 'device', 'stream', or 'auto' to decide by the size.
      limit_bytes: Largest size of the uint8 images for which 'auto' uses the devices.
    """
    return placement == 'device' or (placement == 'auto' and source.nbytes <= limit_bytes)


def load_split(source: ImageSource, labels: bool = False, num: int | None = None) -> Examples:
    """Read a split, or evenly spaced images of it, into host memory, in record order.

    Args:
      source: The split.
      labels: Whether to read the labels as well.
      num: Largest number of images; None means all. The images are spaced evenly because folders
        are sorted by class.

    Returns:
      Images uint8 [N, H, W, C]; labels int32 [N], or None.
    """
    count = len(source) if num is None else min(num, len(source))
    images = np.empty((count, *source.image_shape), np.uint8)
    classes = np.empty(count, np.int32) if labels else None
    description = f'Reading {source.name} {source.split}'
    with tqdm.tqdm(total=count, desc=description, delay=3, disable=None) as bar:
        for start in range(0, count, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, count))
            batch = source.read(rows * len(source) // count, labels)
            images[rows] = batch.images
            if labels:
                classes[rows] = batch.labels
            bar.update(len(rows))
    return Examples(images, classes)


def stream(
    source: ImageSource,
    seed: int,
    ranges: Sequence[tuple[int, int]],
    batch_size: int,
    rows: slice = slice(None),
    num_threads: int = 2,
    labels: bool = False,
) -> Generator[Examples, None, None]:
    """Yield the batches of steps [first, end) for each range, prefetched by threads (Grain).

    The images are those of `batch_indices(seed, first, batch_size, len(source), end - first)`,
    without the rows that other processes read. Close the generator (`contextlib.closing`) to stop
    the threads early.

    Args:
      source: The split.
      seed: Seed of the run.
      ranges: Contiguous ranges (first step, end).
      batch_size: Images per batch, over all processes.
      rows: Rows of each batch that this process reads.
      num_threads: Number of threads. At least two batches per thread, and all batches of a range,
        are prefetched.
      labels: Whether to read the labels as well.

    Yields:
      Images uint8 [end - first, number of rows, H, W, C]; labels int32 [end - first, number of
      rows], or None.
    """
    import grain  # Imported here because it takes a second and only streams need it.

    def read(step: int) -> Examples:
        return source.read(batch_indices(seed, step, batch_size, len(source))[0, rows], labels)

    if not ranges:
        return
    num_prefetched = max([2 * num_threads, *(end - first for first, end in ranges[:2])])
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_prefetched)
    steps = grain.MapDataset.range(ranges[0][0], ranges[-1][1])
    batches = iter(steps.map(read).to_iter_dataset(options))
    try:
        for first, end in ranges:
            examples = [next(batches) for _ in range(first, end)]
            yield Examples(
                np.stack([example.images for example in examples]),
                np.stack([example.labels for example in examples]) if labels else None,
            )
    finally:
        batches.close()  # Stops the threads.


def images_per_step(config: ConfigDict) -> int:
    """Return the number of images per step: a batch for each update of D, and at least one."""
    return config.batch_size * max(config.discriminator_steps, 1)


def create_input_iter(
    config: ConfigDict, mesh: Mesh, source: ImageSource, ranges: Sequence[tuple[int, int]]
) -> tuple[Examples | None, Generator[jax.Array | Examples, None, None]]:
    """Create the inputs of `parallel.train_call` for the calls of `ranges`.

    Args:
        config: The run's config.
        mesh: The run's mesh.
        source: The training split.
        ranges: (first step, end) of each call.

    Returns:
        Either the split on every device, with images uint8 `[N, H * W * C]`, and a generator of
        index batches int32 `[K, B]`; or None and a generator of batches of images uint8
        `[K, B, H, W, C]`. The images are the same in both cases. B is `images_per_step(config)`.
        Conditional runs also have labels, int32 `[N]` or `[K, B]`. Close the generator to stop
        early.

    Raises:
        UserError: If the run is conditional and the split has no labels.
    """
    if config.conditional:
        source.require_labels()
    step_size = images_per_step(config)
    batch_sharding = sharding.sharded(mesh, axis=1)
    if is_device_resident(source, config.data.placement, config.data.device_limit_bytes):
        replicated = sharding.replicated(mesh)
        examples = load_split(source, config.conditional)
        examples = examples._replace(images=examples.images.reshape(len(source), -1))
        split = jax.tree.map(lambda array: sharding.place(array, replicated), examples)
        indices = (
            batch_indices(config.seed, first, step_size, len(source), end - first)
            for first, end in ranges
        )
        return split, (sharding.place(batch, batch_sharding) for batch in indices)
    # Each process reads the rows of its own devices.
    count, index = step_size // jax.process_count(), jax.process_index()
    rows = slice(index * count, (index + 1) * count)
    batches = stream(source, config.seed, ranges, step_size, rows, labels=config.conditional)
    return None, _place_batches(batches, batch_sharding)


def _place_batches(
    batches: Generator[Examples, None, None], batch_sharding: jax.sharding.Sharding
) -> Generator[Examples, None, None]:
    with contextlib.closing(batches):  # Stops the threads.
        for batch in batches:
            yield jax.tree.map(
                lambda rows: jax.make_array_from_process_local_data(batch_sharding, rows), batch
            )

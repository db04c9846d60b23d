"""From a source of images to batches: as one array for the device, or as a stream.

The order of the images is a function of (seed, step) alone. The training images form one endless
sequence: epoch after epoch, each a fresh permutation; batches cross the borders and drop nothing. A
resumed run and a run on more devices therefore see the same batches.
"""

import contextlib
import functools
from collections.abc import Generator, Sequence

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax.data.sources import Examples, ImageSource
from dcgan_jax.runtime import sharding

_CHUNK = 1000  # images read between two updates of the progress bar
PLACEMENTS = ('auto', 'device', 'stream')


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Returns the order of the images in one epoch: a read-only permutation of range(n), int64 [n].

    It ranks raw outputs of Philox (Salmon et al. 2011, SC11) keyed by (seed, epoch), which, unlike
    NumPy's own `permutation`, are the same in every version of NumPy.
    """
    keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    order = np.argsort(keys, kind='stable')
    order.flags.writeable = False
    return order


def batch_indices(
    seed: int, step: int, batch_size: int, n: int, num_batches: int = 1
) -> np.ndarray:
    """Returns which images make up the batches of steps [step, step + num_batches).

    Image j of batch t is number p = t * batch_size + j of the endless sequence, which is
    `epoch_order(seed, p // n, n)[p % n]`.

    Args:
      seed: Seed of the run, at least 0.
      step: First step, from 0.
      batch_size: Images a batch; may be more than n.
      n: Images in the data set.
      num_batches: Number of steps.

    Returns:
      int32 [num_batches, batch_size] in [0, n).
    """
    positions = step * batch_size + np.arange(num_batches * batch_size, dtype=np.int64)
    epochs, offsets = np.divmod(positions, n)
    indices = np.empty(len(positions), np.int32)
    for epoch in range(epochs[0], epochs[-1] + 1):
        here = epochs == epoch
        indices[here] = epoch_order(seed, epoch, n)[offsets[here]]
    return indices.reshape(num_batches, batch_size)


def fits_on_device(source: ImageSource, placement: str, limit_bytes: int) -> bool:
    """Decides whether the split is to be held on the device (True) or streamed (False).

    Args:
      source: The split.
      placement: 'device' or 'stream' say which; 'auto' asks for the device up to `limit_bytes`.
      limit_bytes: Most bytes of uint8 images that 'auto' puts on the device.
    """
    return placement == 'device' or (placement == 'auto' and source.nbytes <= limit_bytes)


def load_split(source: ImageSource, labels: bool = False) -> Examples:
    """Reads the whole split into host memory, in record order.

    Args:
      source: The split.
      labels: Whether to read the labels too.

    Returns:
      Images uint8 [N, H, W, C]; labels int32 [N], or None if not asked for.
    """
    images = np.empty((len(source), *source.image_shape), np.uint8)
    classes = np.empty(len(source), np.int32) if labels else None
    description = f'Reading {source.name} {source.split}'
    with tqdm.tqdm(total=len(source), desc=description, delay=3, disable=None) as bar:
        for start in range(0, len(source), _CHUNK):
            indices = np.arange(start, min(start + _CHUNK, len(source)))
            part = source.read(indices, labels)
            images[indices] = part.images
            if labels:
                classes[indices] = part.labels
            bar.update(len(indices))
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
    """Yields the batches of steps [first, end) for each of `ranges`, read ahead by threads (Grain).

    The element of (first, end) holds the images `batch_indices(seed, first, batch_size,
    len(source), end - first)`, without the rows that other processes read. Nothing before the first
    range is read. To stop before the end, close the generator (`contextlib.closing`), which ends
    the threads.

    Args:
      source: The split.
      seed: Seed of the run.
      ranges: (first step, end) of each element, each where the one before ends.
      batch_size: Images a batch, over all processes.
      rows: The rows of each batch that this process reads.
      num_threads: Threads that read ahead, by one element or by two batches each.
      labels: Whether to read the labels too.

    Yields:
      Images uint8 [end - first, number of rows, H, W, C]; labels int32 [end - first, number of
      rows], or None if not asked for.
    """
    import grain  # here, because it takes a second and only streams need it

    def read(step: int) -> Examples:
        return source.read(batch_indices(seed, step, batch_size, len(source))[0, rows], labels)

    if not ranges:
        return
    ahead = max([2 * num_threads, *(end - first for first, end in ranges[:2])])
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=ahead)
    steps = grain.MapDataset.range(ranges[0][0], ranges[-1][1])
    batches = iter(steps.map(read).to_iter_dataset(options))
    try:
        for first, end in ranges:
            parts = [next(batches) for _ in range(first, end)]
            yield Examples(
                np.stack([part.images for part in parts]),
                np.stack([part.labels for part in parts]) if labels else None,
            )
    finally:
        batches.close()  # a stream that is dropped half-way must not leave threads behind


def create_input_iter(
    config: ConfigDict, mesh: Mesh, source: ImageSource, ranges: Sequence[tuple[int, int]]
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
    if fits_on_device(source, config.data.placement, config.data.device_limit_bytes):
        everywhere = sharding.replicated(mesh)
        examples = load_split(source, config.conditional)
        examples = examples._replace(images=examples.images.reshape(len(source), -1))
        split = jax.tree.map(lambda array: sharding.place(array, everywhere), examples)
        indices = (
            batch_indices(config.seed, first, taken, len(source), end - first)
            for first, end in ranges
        )
        return split, (sharding.place(batch, placed) for batch in indices)
    # Each process reads the rows of its own devices.
    share = taken // jax.process_count()
    rows = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
    batches = stream(source, config.seed, ranges, taken, rows, labels=config.conditional)
    return None, _place_batches(batches, placed)


def _place_batches(
    batches: Generator[Examples, None, None], placed: jax.sharding.Sharding
) -> Generator[Examples, None, None]:
    with contextlib.closing(batches):  # Its threads end with it.
        for batch in batches:
            yield jax.tree.map(
                lambda rows: jax.make_array_from_process_local_data(placed, rows), batch
            )

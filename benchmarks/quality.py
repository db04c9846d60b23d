"""Metrics of a config's samples over the wall-clock time of training, from a cold start.

python -m benchmarks.quality --config=cifar10_cpu --data_dir=DIR --minutes=5,10,20,30 \
    --extractor=FILE.jaxexport --reference=FILE.npz --out=/tmp/quality

The time includes imports, reading the data and compilation, but not evaluation. The compilation
cache is not used. For each of the given times, prints a JSON line and writes a grid of samples to
OUT/CONFIG_MINUTES.png.
"""

# ruff: noqa: E402 (The clock starts before the imports.)
import time

_START = time.perf_counter()

import argparse
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from benchmarks import measure, program
from dcgan_jax import config as config_lib
from dcgan_jax import models, parallel, train_state
from dcgan_jax.data import images, input_pipeline, sources
from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.evaluation import SampleScorer
from dcgan_jax.models import Networks
from dcgan_jax.runtime import sharding
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

_GRID_SIZE = 100  # Images in a grid.


class Snapshot(NamedTuple):
    """A training state on the host, and the training time at which it was reached."""

    seconds: float
    state: GANState


def train(
    config: ConfigDict,
    source: ImageSource,
    networks: Networks,
    eval_times: list[float],
    start: float | None = _START,
) -> list[Snapshot]:
    """Train until the last evaluation time or step, and return the state at each of these times.

    If training ends before the last time, the last returned state is the final one.

    Args:
        config: The run's config.
        source: The training images.
        networks: Networks of the config.
        eval_times: Seconds since `start`, ascending.
        start: Value of `time.perf_counter()` from which time is counted; None means the end of the
            first call, so that compilation is not included.
    """
    mesh = sharding.create_mesh(config.batch_size)
    create = functools.partial(train_state.create, config, networks, source.image_shape)
    abstract_state = parallel.create_abstract_state(create, mesh)
    state = parallel.initial_state(create, abstract_state)
    state = train_state.add_captions(state, abstract_state, config, source.class_names)
    ranges = parallel.CallRanges(0, config.num_steps, parallel.steps_per_call(config))
    split, batches = input_pipeline.create_input_iter(config, mesh, source, ranges)
    call = parallel.train_call(config, mesh, abstract_state, source.image_shape)
    snapshots, metrics, remaining = [], None, list(eval_times)
    with contextlib.closing(batches):
        for batch in batches:
            jax.block_until_ready(metrics)  # The host is one call ahead, as in training.
            state, metrics = call(state, split, batch, None)
            if start is None:
                jax.block_until_ready(metrics)
                start = time.perf_counter()
            if time.perf_counter() - start >= remaining[0]:
                snapshots.append(_snapshot(state, start))
                while remaining and snapshots[-1].seconds >= remaining[0]:
                    remaining.pop(0)
                if not remaining:
                    return snapshots
    return [*snapshots, _snapshot(state, start)]


def _snapshot(state: GANState, start: float) -> Snapshot:
    host_state = jax.device_get(state)
    return Snapshot(time.perf_counter() - start, host_state)


def scores(
    config: ConfigDict,
    source: ImageSource,
    networks: Networks,
    snapshots: list[Snapshot],
    grids: str,
) -> Iterator[dict[str, Any]]:
    """Yield the metrics of samples of each snapshot.

    Args:
        config: The run's config; `config.evaluation` selects the metrics.
        source: Training images, with which the samples are compared.
        networks: Networks of the config.
        snapshots: Snapshots from `train`.
        grids: Prefix of the files GRIDS_MINUTES.png with sample grids; '' writes none.
    """
    sampler = Sampler(networks.generator, config)
    scorer = SampleScorer(config, sampler, source)
    for snapshot in snapshots:
        step, minutes = int(snapshot.state.step), snapshot.seconds / 60
        if grids:
            pictures = sampler(snapshot.state, sampler.latents(0, _GRID_SIZE))
            images.write_png(Path(f'{grids}_{minutes:.2g}.png'), images.grid(pictures))
        result = scorer(snapshot.state, config.evaluation.num_samples, seed=0)
        yield {
            'seed': config.seed,
            'minutes': round(minutes, 3),
            'step': step,
            'images_seen': step * config.batch_size * config.discriminator_steps,
            **result.values,
            'labels': result.labels,
            'protocol': result.protocol,
        }


def main() -> None:
    """Train, then evaluate each snapshot and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--data_dir', default='')
    parser.add_argument(
        '--minutes', default='5,10,20,30', help='comma-separated training times of the evaluations'
    )
    parser.add_argument('--num_samples', type=int, default=10_000)
    parser.add_argument('--metrics', default='frechet_distance')
    parser.add_argument('--extractor', default='inception')
    parser.add_argument('--reference', default='')
    parser.add_argument('--out', default='', help='folder for sample grids')
    flags = parser.parse_args()

    config = program.load_config(flags.config, flags.set)
    config.data_dir = flags.data_dir
    config.evaluation.update(
        metrics=tuple(flags.metrics.split(',')),
        num_samples=flags.num_samples,
        extractor=flags.extractor,
        reference=flags.reference,
    )
    config_lib.validate(config)
    source = sources.open_split(config, config.data.split)
    networks = models.build(config, source.image_shape, source.num_classes)
    eval_times = [60 * float(minutes) for minutes in flags.minutes.split(',')]
    snapshots = train(config, source, networks, eval_times)

    name = Path(flags.config).stem
    grids = str(Path(flags.out) / name) if flags.out else ''
    for score in scores(config, source, networks, snapshots, grids):
        measure.report('quality', config=name, changes=flags.set, **score)


if __name__ == '__main__':
    main()

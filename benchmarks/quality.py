"""Metrics of a config's samples over the wall-clock time of its training, from a cold start.

python -m benchmarks.quality --config=cifar10_cpu --data_dir=DIR --minutes=5,10,20,30 \
    --extractor=FILE.jaxexport --reference=FILE.npz --out=/tmp/quality

The time includes imports, reading the data and compilation, but not evaluation. The compilation
cache is not used. Each mark prints a JSON line and writes a grid of samples to
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


class Mark(NamedTuple):
    """A state on the host and the time at which it was reached."""

    seconds: float
    state: GANState


def train(
    config: ConfigDict,
    source: ImageSource,
    networks: Networks,
    marks: list[float],
    start: float | None = _START,
) -> list[Mark]:
    """Train until the last mark or step and return the state at each mark.

    The last state is that of the last step if training ends before a mark.

    Args:
        config: The run's config.
        source: The training images.
        networks: Networks of the config.
        marks: Seconds since the start, ascending.
        start: `time.perf_counter()` at the start; None means the end of the first call, which
            compiles the program.
    """
    mesh = sharding.create_mesh(config.batch_size)
    create = functools.partial(train_state.create, config, networks, source.image_shape)
    like = parallel.abstract_state(create, mesh)
    state = parallel.initial_state(create, like)
    state = train_state.add_captions(state, like, config, source.class_names)
    ranges = parallel.CallRanges(0, config.num_steps, parallel.steps_per_call(config))
    split, batches = input_pipeline.create_input_iter(config, mesh, source, ranges)
    call = parallel.train_call(config, mesh, like, source.image_shape)
    reached, metrics, remaining = [], None, list(marks)
    with contextlib.closing(batches):
        for batch in batches:
            jax.block_until_ready(metrics)  # The host is one call ahead, as in training.
            state, metrics = call(state, split, batch)
            if start is None:
                jax.block_until_ready(metrics)
                start = time.perf_counter()
            if time.perf_counter() - start >= remaining[0]:
                reached.append(_mark(state, start))
                while remaining and reached[-1].seconds >= remaining[0]:
                    remaining.pop(0)
                if not remaining:
                    return reached
    return [*reached, _mark(state, start)]


def _mark(state: GANState, start: float) -> Mark:
    host_state = jax.device_get(state)
    return Mark(time.perf_counter() - start, host_state)


def scores(
    config: ConfigDict, source: ImageSource, networks: Networks, marks: list[Mark], grids: str
) -> Iterator[dict[str, Any]]:
    """Yield the metrics of samples at each mark.

    Args:
        config: The run's config; `config.evaluation` selects the metrics.
        source: The images to compare with.
        networks: Networks of the config.
        marks: Marks from `train`.
        grids: Prefix of the grids GRIDS_MINUTES.png; '' for none.
    """
    sampler = Sampler(networks.generator, config)
    scorer = SampleScorer(config, sampler, source)
    for mark in marks:
        step, minutes = int(mark.state.step), mark.seconds / 60
        if grids:
            pictures = sampler(mark.state, sampler.latents(0, _GRID_SIZE))
            images.write_png(Path(f'{grids}_{minutes:.2g}.png'), images.grid(pictures))
        result = scorer(mark.state, config.evaluation.num_samples, seed=0)
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
    """Train, then evaluate each mark."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--data_dir', default='')
    parser.add_argument('--minutes', default='5,10,20,30', help='times of the evaluations')
    parser.add_argument('--num_samples', type=int, default=10_000)
    parser.add_argument('--metrics', default='frechet_distance')
    parser.add_argument('--extractor', default='inception')
    parser.add_argument('--reference', default='')
    parser.add_argument('--out', default='', help='folder for grids')
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
    marks = train(config, source, networks, [60 * float(m) for m in flags.minutes.split(',')])

    name = Path(flags.config).stem
    grids = str(Path(flags.out) / name) if flags.out else ''
    for score in scores(config, source, networks, marks, grids):
        measure.report('quality', config=name, changes=flags.set, **score)


if __name__ == '__main__':
    main()

"""Figures of a config's samples over the wall-clock of its training, from a cold start.

python -m benchmarks.quality --config=cifar10_cpu --data_dir=DIR --minutes=5,10,20,30 \
    --extractor=FILE.jaxexport --reference=FILE.npz --out=/tmp/quality

The clock runs from the start of the program: imports, reading the data and compiling count, scoring
does not. `--set FIELD=VALUE` changes the config, as --config.FIELD=VALUE does for main.py. Compiled
programs are not kept. Each mark prints a JSON line and draws OUT/CONFIG_MINUTES.png.
"""

# ruff: noqa: E402 (the clock starts before the imports)
import time

_START = time.perf_counter()

import argparse
import ast
import contextlib
import functools
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from benchmarks import measure, program
from dcgan_jax import compiled, feed, images, models, sources, train_state
from dcgan_jax import config as config_lib
from dcgan_jax import mesh as mesh_lib
from dcgan_jax.models import Networks
from dcgan_jax.sampling import Sampler
from dcgan_jax.scoring import SampleScorer
from dcgan_jax.sources import ImageSource
from dcgan_jax.train_state import GANState

_GRID = 100  # pictures


class Mark(NamedTuple):
    """A state on the host, and when it was reached."""

    seconds: float
    state: GANState


def train(
    config: ConfigDict, source: ImageSource, networks: Networks, marks: list[float]
) -> list[Mark]:
    """Trains until the last mark (seconds since the start) or step; returns a state at each.

    A mark that the run's last step comes before has the state after that step.
    """
    mesh = mesh_lib.create(config.batch_size)
    create = functools.partial(train_state.create, config, networks, source.image_shape)
    like = compiled.abstract_state(create, mesh, config.sharding)
    state = compiled.initial_state(create, like)
    state = train_state.with_captions(state, like, config, source.class_names)
    ranges = compiled.CallRanges(0, config.num_steps, compiled.steps_per_call(config))
    split, batches = feed.feed(config, mesh, source, ranges)
    call = compiled.train_call(config, mesh, like)
    reached, metrics, left = [], None, list(marks)
    with contextlib.closing(batches):
        for batch in batches:
            jax.block_until_ready(metrics)  # One call ahead, as in training.
            state, metrics = call(state, split, batch)
            if time.perf_counter() - _START >= left[0]:
                reached.append(_mark(state))
                while left and reached[-1].seconds >= left[0]:
                    left.pop(0)
                if not left:
                    return reached
    return [*reached, _mark(state)]


def _mark(state: GANState) -> Mark:
    kept = jax.device_get(state)
    return Mark(time.perf_counter() - _START, kept)


def main() -> None:
    """Trains, then scores each mark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default='cifar10', help='a file of configs/, without .py')
    parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE')
    parser.add_argument('--data_dir', default='')
    parser.add_argument('--minutes', default='5,10,20,30', help='when to score, since the start')
    parser.add_argument('--num_samples', type=int, default=10_000)
    parser.add_argument('--metrics', default='frechet_distance')
    parser.add_argument('--extractor', default='inception')
    parser.add_argument('--reference', default='')
    parser.add_argument('--out', default='', help='folder for grids')
    flags = parser.parse_args()

    config = program.load_config(flags.config)
    for field, value in (pair.split('=', 1) for pair in flags.set):
        with contextlib.suppress(ValueError, SyntaxError):  # A word is itself.
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({field: value})
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

    sampler = Sampler(networks.generator, config)
    scorer = SampleScorer(config, sampler, source)
    for mark in marks:
        step, minutes = int(mark.state.step), mark.seconds / 60
        if flags.out:
            pictures = sampler(mark.state, sampler.latents(0, _GRID))
            path = Path(flags.out) / f'{flags.config}_{minutes:.0f}.png'
            images.write_png(path, images.grid(pictures))
        result = scorer(mark.state, config.evaluation.num_samples, seed=0)
        measure.report(
            'quality',
            config=flags.config,
            changes=flags.set,
            seed=config.seed,
            minutes=round(minutes, 2),
            step=step,
            images_seen=step * config.batch_size * config.discriminator_steps,
            **result.values,
            labels=result.labels,
            protocol=result.protocol,
        )


if __name__ == '__main__':
    main()

"""A run's compiled program on made-up images, without files: what the benchmarks time."""

import argparse
import ast
import contextlib
import functools
import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import models, parallel, train_state
from dcgan_jax.data.sources import Examples
from dcgan_jax.models import Networks
from dcgan_jax.runtime import sharding
from dcgan_jax.train_state import GANState

IMAGE_SHAPE = (32, 32, 3)
NUM_IMAGES = 50_000
NUM_CLASSES = 10


class Program(NamedTuple):
    """A compiled call, and what it takes."""

    config: ConfigDict
    mesh: Mesh
    networks: Networks
    call: jax.stages.Compiled
    state: GANState
    split: Examples
    batches: jax.Array

    def updates(self) -> Callable[[], jax.Array]:
        """A function that makes the next `len(batches)` updates; ask once, the state is donated."""
        state = self.state

        def update() -> jax.Array:
            nonlocal state
            state, _ = self.call(state, self.split, self.batches)
            return state.step

        return update


def add_config_flags(parser: argparse.ArgumentParser, default: str = 'cifar10') -> None:
    """Adds `--config` and `--set`, which `load_config` takes."""
    parser.add_argument('--config', default=default, help='NAME or configs/NAME.py')
    parser.add_argument(
        '--set', action='append', default=[], metavar='FIELD=VALUE',
        help="changes the config, as main.py's --config.FIELD=VALUE does; may be repeated",
    )  # fmt: skip


def config_names() -> list[str]:
    """Names of the configs in `configs/`, sorted, without `default`."""
    folder = Path(__file__).resolve().parents[1] / 'configs'
    return sorted({path.stem for path in folder.glob('*.py')} - {'default'})


def load_config(name: str, changes: Sequence[str] = ()) -> ConfigDict:
    """The config of `configs/NAME.py`, by its name or path, with FIELD=VALUE changes."""
    config = importlib.import_module(f'dcgan_jax.configs.{Path(name).stem}').get_config()
    for field, value in (change.split('=', 1) for change in changes):
        with contextlib.suppress(ValueError, SyntaxError):  # A word is itself.
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({field: value})
    return config


def random_pixels(count: int) -> np.ndarray:
    """Noise, uint8 `[count, *IMAGE_SHAPE]`."""
    return np.random.default_rng(0).integers(0, 256, (count, *IMAGE_SHAPE), np.uint8)


def build(
    config: ConfigDict,
    steps_per_call: int,
    num_images: int = NUM_IMAGES,
    mesh: Mesh | None = None,
) -> Program:
    """Compiles the training call of a config for random images that stay on the device(s)."""
    mesh = mesh or sharding.create_mesh(config.batch_size)
    networks = models.build(config, IMAGE_SHAPE, NUM_CLASSES)
    create = functools.partial(train_state.create, config, networks, IMAGE_SHAPE)
    like = parallel.abstract_state(create, mesh)
    state = parallel.initial_state(create, like)
    pixels = random_pixels(num_images).reshape(num_images, -1)
    labels = np.arange(num_images, dtype=np.int32) % NUM_CLASSES if config.conditional else None
    split = jax.device_put(Examples(pixels, labels), sharding.replicated(mesh))
    taken = config.batch_size * config.discriminator_steps
    rng = np.random.default_rng(1)
    indices = rng.integers(0, num_images, (steps_per_call, taken)).astype(np.int32)
    batches = jax.device_put(indices, sharding.sharded(mesh, axis=1))
    call = parallel.train_call(config, mesh, like, IMAGE_SHAPE)
    call = call.lower(state, split, batches).compile()
    return Program(config, mesh, networks, call, state, split, batches)


def lower(
    config: ConfigDict,
    mesh: Mesh,
    num_images: int = 1,
    platforms: Sequence[str] | None = None,
) -> jax.stages.Lowered:
    """Lower one update of a config from shapes alone; the mesh's devices need not be present.

    Args:
        config: The run's config.
        mesh: Devices that share a batch.
        num_images: Number of images in the data set.
        platforms: Platforms to lower for, e.g. `('cuda', 'tpu')`; None means the mesh's.

    Returns:
        The lowered call with `steps_per_call=1`.
    """
    networks = models.build(config, IMAGE_SHAPE, NUM_CLASSES)
    create = functools.partial(train_state.create, config, networks, IMAGE_SHAPE)
    state = parallel.abstract_state(create, mesh)
    labels = jax.ShapeDtypeStruct((num_images,), np.int32) if config.conditional else None
    split = Examples(jax.ShapeDtypeStruct((num_images, math.prod(IMAGE_SHAPE)), np.uint8), labels)
    taken = config.batch_size * max(config.discriminator_steps, 1)
    batches = jax.ShapeDtypeStruct((1, taken), np.int32)
    traced = parallel.train_call(config, mesh, state, IMAGE_SHAPE).trace(state, split, batches)
    return traced.lower(lowering_platforms=platforms) if platforms else traced.lower()


def arithmetic(config: ConfigDict) -> float:
    """FLOPs of one update by the direct convolutions, whatever implementation runs."""
    direct = config.copy_and_resolve_references()
    direct.conv_impl = 'xla'
    # Not every accelerator's client counts operations before it compiles; the CPU's does.
    mesh = Mesh(np.asarray(jax.devices('cpu')[:1]), (sharding.AXIS,))
    return lower(direct, mesh).cost_analysis()['flops']

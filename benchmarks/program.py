"""Compiled training program of a config on random images, for benchmarks."""

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
from dcgan_jax.data import input_pipeline
from dcgan_jax.data.image_source import Examples
from dcgan_jax.models import Networks
from dcgan_jax.runtime import sharding
from dcgan_jax.train_state import GANState, Teacher

IMAGE_SHAPE = (32, 32, 3)
NUM_IMAGES = 50_000
NUM_CLASSES = 10


class Program(NamedTuple):
    """A compiled training call with its arguments."""

    config: ConfigDict
    mesh: Mesh
    networks: Networks
    call: jax.stages.Compiled
    state: GANState
    split: Examples
    batches: jax.Array
    teacher: Teacher | None

    def updates(self) -> Callable[[], jax.Array]:
        """Return a function that runs the next training call and returns the step.

        Call this method only once, because the state is donated.
        """
        state = self.state

        def update() -> jax.Array:
            nonlocal state
            state, _ = self.call(state, self.split, self.batches, self.teacher)
            return state.step

        return update


def add_config_flags(parser: argparse.ArgumentParser, default: str = 'cifar10') -> None:
    """Add `--config` and `--set`, the arguments of `load_config`."""
    parser.add_argument('--config', default=default, help='NAME or configs/NAME.py')
    parser.add_argument(
        '--set', action='append', default=[], metavar='FIELD=VALUE',
        help="override of a field, like main.py's --config.FIELD=VALUE; may be repeated",
    )  # fmt: skip


def config_names() -> list[str]:
    """Return the sorted names of the configs in `configs/`, except `default`."""
    folder = Path(__file__).resolve().parents[1] / 'configs'
    return sorted({path.stem for path in folder.glob('*.py')} - {'default'})


def load_config(name: str, changes: Sequence[str] = ()) -> ConfigDict:
    """Load `configs/NAME.py`, given by NAME or path, and apply changes FIELD=VALUE."""
    config = importlib.import_module(f'dcgan_jax.configs.{Path(name).stem}').get_config()
    for field, value in (change.split('=', 1) for change in changes):
        with contextlib.suppress(ValueError, SyntaxError):  # Strings need no quotes.
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({field: value})
    return config


def random_pixels(count: int) -> np.ndarray:
    """Return random images, uint8 `[count, *IMAGE_SHAPE]`."""
    return np.random.default_rng(0).integers(0, 256, (count, *IMAGE_SHAPE), np.uint8)


def build(
    config: ConfigDict,
    steps_per_call: int,
    num_images: int = NUM_IMAGES,
    mesh: Mesh | None = None,
) -> Program:
    """Compile the training call of a config, and put random images on the devices."""
    mesh = mesh or sharding.create_mesh(config.batch_size)
    networks = models.build(config, IMAGE_SHAPE, NUM_CLASSES)
    create = functools.partial(train_state.create, config, networks, IMAGE_SHAPE)
    abstract_state = parallel.create_abstract_state(create, mesh)
    state = parallel.initial_state(create, abstract_state)
    pixels = random_pixels(num_images).reshape(num_images, -1)
    labels = np.arange(num_images, dtype=np.int32) % NUM_CLASSES if config.conditional else None
    split = jax.device_put(Examples(pixels, labels), sharding.replicated(mesh))
    step_size = config.batch_size * config.discriminator_steps
    rng = np.random.default_rng(1)
    indices = rng.integers(0, num_images, (steps_per_call, step_size)).astype(np.int32)
    batches = jax.device_put(indices, sharding.sharded(mesh, axis=1))
    call = parallel.train_call(config, mesh, abstract_state, IMAGE_SHAPE)
    teacher = untrained_teacher(config)
    call = call.lower(state, split, batches, teacher).compile()
    return Program(config, mesh, networks, call, state, split, batches, teacher)


def untrained_teacher(config: ConfigDict) -> Teacher | None:
    """Return a teacher with initial weights for a config of distillation."""
    if not config.distill.teacher:
        return None
    generator = models.build(load_config('cifar10_cpu'), IMAGE_SHAPE).generator
    latents = np.zeros((1, config.latent_dim), np.float32)
    return Teacher(generator.init(jax.random.key(0), latents, train=False), generator.apply)


def lower(
    config: ConfigDict,
    mesh: Mesh,
    num_images: int = 1,
    platforms: Sequence[str] | None = None,
) -> jax.stages.Lowered:
    """Lower one training step of a config, without arrays; the mesh's devices need not exist.

    Args:
        config: The run's config.
        mesh: The mesh.
        num_images: Number of images in the data set.
        platforms: Platforms to lower for, e.g. `('cuda', 'tpu')`; None means that of the mesh.

    Returns:
        The lowered call with `steps_per_call=1`.
    """
    networks = models.build(config, IMAGE_SHAPE, NUM_CLASSES)
    create = functools.partial(train_state.create, config, networks, IMAGE_SHAPE)
    state = parallel.create_abstract_state(create, mesh)
    labels = jax.ShapeDtypeStruct((num_images,), np.int32) if config.conditional else None
    split = Examples(jax.ShapeDtypeStruct((num_images, math.prod(IMAGE_SHAPE)), np.uint8), labels)
    step_size = input_pipeline.images_per_step(config)
    batches = jax.ShapeDtypeStruct((1, step_size), np.int32)
    teacher = jax.eval_shape(lambda: untrained_teacher(config))
    call = parallel.train_call(config, mesh, state, IMAGE_SHAPE)
    traced = call.trace(state, split, batches, teacher)
    return traced.lower(lowering_platforms=platforms) if platforms else traced.lower()


def direct_conv_flops(config: ConfigDict) -> float:
    """Return the FLOPs of one step with direct convolutions, whatever `conv_impl` is."""
    direct = config.copy_and_resolve_references()
    direct.conv_impl = 'xla'
    # Not all accelerators support the cost analysis before compilation; CPUs do.
    mesh = Mesh(np.asarray(jax.devices('cpu')[:1]), (sharding.AXIS,))
    return lower(direct, mesh).cost_analysis()['flops']

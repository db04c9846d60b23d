"""Data-parallel training: a jitted call of several steps on all devices of a mesh."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import models, train_state
from dcgan_jax.data import images
from dcgan_jax.data.image_source import Examples
from dcgan_jax.run_description import Run
from dcgan_jax.runtime import nonfinite, sharding
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.train_state import GANState, NetworkState, Teacher
from dcgan_jax.train_step import Metrics, train_step

TrainCall = Callable[
    [GANState, Examples | None, jax.Array | Examples, Teacher | None], tuple[GANState, Metrics]
]


def train_call(
    config: ConfigDict, mesh: Mesh, abstract_state: GANState, image_shape: tuple[int, int, int]
) -> TrainCall:
    """Return a jitted function `call(state, split, batches, teacher) -> (state, metrics)`.

    The inputs are those of `input_pipeline.create_input_iter`: either `split`, images uint8
    `[N, H * W * C]` (flat because TPUs pad short axes), with index batches int32 `[K, B]`; or None
    with batches of images uint8 `[K, B, H, W, C]`. A call runs K steps; the metrics are float32
    `[K]`. The state is donated. `teacher` is None without distillation.

    Args:
        config: The run's config.
        mesh: The run's mesh.
        abstract_state: Abstract state with shardings, see `create_abstract_state`.
        image_shape: (H, W, C) of the images.
    """
    state_shardings = shardings(abstract_state)
    replicated, sharded = sharding.replicated(mesh), sharding.sharded(mesh)

    def update(
        state: GANState,
        split: Examples | None,
        batch: jax.Array | Examples,
        teacher: Teacher | None,
    ) -> tuple[GANState, Metrics]:
        if split is not None:
            batch = jax.tree.map(lambda leaf: jnp.take(leaf, batch, axis=0), split)
        batch = jax.lax.with_sharding_constraint(batch, sharded)
        key = jax.random.fold_in(purpose_key(config.seed, Purpose.STEP), state.step)
        parallel = state.replace(
            generator=_data_parallel(state.generator, mesh),
            discriminator=_data_parallel(state.discriminator, mesh),
        )
        real = images.to_float(batch.images.reshape(-1, *image_shape))
        if teacher is not None:
            teacher = _data_parallel(teacher, mesh)
        after, metrics = train_step(parallel, real, batch.labels, key, config, teacher)
        if config.on_nonfinite == 'skip':
            after, metrics = nonfinite.skip_nonfinite(parallel, after, metrics)
        return after.replace(
            generator=after.generator.replace(apply_fn=state.generator.apply_fn),
            discriminator=after.discriminator.replace(apply_fn=state.discriminator.apply_fn),
        ), metrics

    def call(
        state: GANState,
        split: Examples | None,
        batches: jax.Array | Examples,
        teacher: Teacher | None,
    ) -> tuple[GANState, Metrics]:
        # XLA:CPU does not parallelize matrix products within a loop.
        if len(jax.tree.leaves(batches)[0]) == 1:
            batch = jax.tree.map(lambda leaf: leaf[0], batches)
            state, metrics = update(state, split, batch, teacher)
            return state, jax.tree.map(lambda value: value[None], metrics)
        return jax.lax.scan(
            lambda state, batch: update(state, split, batch, teacher), state, batches
        )

    return jax.jit(
        call,
        donate_argnums=0,
        in_shardings=(state_shardings, replicated, sharding.sharded(mesh, axis=1), replicated),
        out_shardings=(state_shardings, replicated),
    )


def _data_parallel(network: NetworkState | Teacher, mesh: Mesh) -> NetworkState | Teacher:
    """Return the network with its inputs sharded along the batch axis."""
    sharded = sharding.sharded(mesh)

    def apply(variables: Any, inputs: jax.Array, *rest: Any, **options: Any) -> Any:
        inputs = jax.lax.with_sharding_constraint(inputs, sharded)
        return network.apply_fn(variables, inputs, *rest, **options)

    return network.replace(apply_fn=apply)


class CallRanges(Sequence):
    """Ranges (first step, end) of the calls of a run from `start` to `stop`.

    Calls end at multiples of `steps_per_call` and at `stop`, so that a run resumed at one of these
    multiples makes the same calls as an uninterrupted run.
    """

    def __init__(self, start: int, stop: int, steps_per_call: int):
        """Divide the steps [start, stop) into calls."""
        self.start, self._stop, self.steps_per_call = start, stop, steps_per_call

    def __len__(self) -> int:
        if self.start >= self._stop:
            return 0
        return (self._stop - 1) // self.steps_per_call - self.start // self.steps_per_call + 1

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f'index {index} is out of range for {len(self)} calls')
        boundary = (self.start // self.steps_per_call + index % len(self)) * self.steps_per_call
        return max(boundary, self.start), min(boundary + self.steps_per_call, self._stop)


def steps_per_call(config: ConfigDict) -> int:
    """Return `config.steps_per_call`, or the default of the platform if it is 0."""
    if config.steps_per_call:
        return config.steps_per_call
    return 1 if jax.default_backend() == 'cpu' else 50


def create_abstract_state(create: Callable[[], GANState], mesh: Mesh) -> Any:
    """Return the shapes and shardings of the state that `create` returns."""
    return sharding.abstract(mesh, jax.eval_shape(create))


def abstract_state_of(run: Run, mesh: Mesh) -> GANState:
    """Return the shapes of a run's state, replicated over a mesh."""
    networks = models.build(run.config, run.image_shape, run.num_classes)
    create = functools.partial(train_state.create, run.config, networks, run.image_shape)
    return create_abstract_state(create, mesh)


def initial_state(create: Callable[[], GANState], abstract_state: GANState) -> GANState:
    """Run `create` under jit, with the shardings of `abstract_state`."""
    return jax.jit(create, out_shardings=shardings(abstract_state))()


def shardings(abstract_state: GANState) -> Any:
    """Return the shardings of an abstract state."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state)

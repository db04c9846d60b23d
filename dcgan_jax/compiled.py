"""The compiled program of a run: several updates a call, over all devices of a mesh."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import images
from dcgan_jax import mesh as mesh_lib
from dcgan_jax.keys import Role, role_key
from dcgan_jax.sources import Examples
from dcgan_jax.train_state import GANState
from dcgan_jax.train_step import Metrics, train_step

TrainCall = Callable[[GANState, Examples | None, jax.Array | Examples], tuple[GANState, Metrics]]


def train_call(config: ConfigDict, mesh: Mesh) -> TrainCall:
    """Compiles (at its first use) `call(state, split, batches) -> (state, metrics)`.

    `split` is the whole split, images uint8 `[N, H, W, C]`, with `batches` int32 `[K, B]` of
    indices into it, or None with `batches` of images uint8 `[K, B, H, W, C]`. The call makes K
    updates; its metrics are float32 `[K]`. The state it is given is donated: use the one returned.
    """
    everywhere, shared = mesh_lib.replicated(mesh), mesh_lib.sharded(mesh)

    def update(
        state: GANState, split: Examples | None, batch: jax.Array | Examples
    ) -> tuple[GANState, Metrics]:
        if split is not None:
            batch = jax.tree.map(lambda leaf: jnp.take(leaf, batch, axis=0), split)
        batch = jax.lax.with_sharding_constraint(batch, shared)
        key = jax.random.fold_in(role_key(config.seed, Role.STEP), state.step)
        return train_step(state, images.to_float(batch.images), batch.labels, key, config)

    def call(
        state: GANState, split: Examples | None, batches: jax.Array | Examples
    ) -> tuple[GANState, Metrics]:
        # A loop of one costs XLA:CPU its parallel matrix products.
        if len(jax.tree.leaves(batches)[0]) == 1:
            state, metrics = update(state, split, jax.tree.map(lambda leaf: leaf[0], batches))
            return state, jax.tree.map(lambda value: value[None], metrics)
        return jax.lax.scan(lambda state, batch: update(state, split, batch), state, batches)

    return jax.jit(
        call,
        donate_argnums=0,
        in_shardings=(everywhere, everywhere, mesh_lib.sharded(mesh, axis=1)),
        out_shardings=everywhere,
    )


class CallRanges(Sequence):
    """The (first step, end) of each call of a run from `start` to `stop`.

    Calls end at multiples of `steps_per_call` and at `stop`. So a resumed run makes the calls that
    an uninterrupted one makes, unless it first ended at a step that is no such multiple.
    """

    def __init__(self, start: int, stop: int, steps_per_call: int):
        """Divides steps [start, stop); no call where that is empty."""
        self._start, self._stop, self._size = start, stop, steps_per_call

    def __len__(self) -> int:
        if self._start >= self._stop:
            return 0
        return (self._stop - 1) // self._size - self._start // self._size + 1

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f'call {index} of {len(self)}')
        border = (self._start // self._size + index % len(self)) * self._size
        return max(border, self._start), min(border + self._size, self._stop)


def steps_per_call(config: ConfigDict) -> int:
    """`config.steps_per_call`, or what suits the platform where that is 0."""
    if config.steps_per_call:
        return config.steps_per_call
    return 1 if jax.default_backend() == 'cpu' else 50


def initial_state(create: Callable[[], GANState], mesh: Mesh) -> GANState:
    """Runs `create` compiled, its result replicated over the mesh."""
    return jax.jit(create, out_shardings=mesh_lib.replicated(mesh))()


def abstract_state(create: Callable[[], GANState], mesh: Mesh) -> Any:
    """What `initial_state` returns, as shapes and shardings."""
    return mesh_lib.abstract(mesh, jax.eval_shape(create))

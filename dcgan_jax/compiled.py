"""The compiled program of a run: several updates a call, over all devices of a mesh."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import images
from dcgan_jax import mesh as mesh_lib
from dcgan_jax.train_state import GANState
from dcgan_jax.train_step import Metrics, train_step

TrainCall = Callable[[GANState, jax.Array | None, jax.Array], tuple[GANState, Metrics]]


def train_call(config: ConfigDict, mesh: Mesh) -> TrainCall:
    """Compiles (at its first use) `call(state, split, batches) -> (state, metrics)`.

    `split` is the whole split uint8 `[N, H, W, C]` with `batches` int32 `[K, B]` of indices into
    it, or None with `batches` uint8 `[K, B, H, W, C]`. The call makes K updates; its metrics are
    float32 `[K]`. The state it is given is donated: use the one returned.
    """
    everywhere, shared = mesh_lib.replicated(mesh), mesh_lib.sharded(mesh)

    def update(
        state: GANState, split: jax.Array | None, batch: jax.Array
    ) -> tuple[GANState, Metrics]:
        pixels = batch if split is None else jnp.take(split, batch, axis=0)
        pixels = jax.lax.with_sharding_constraint(pixels, shared)
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        return train_step(state, images.to_float(pixels), key, config)

    def call(
        state: GANState, split: jax.Array | None, batches: jax.Array
    ) -> tuple[GANState, Metrics]:
        if len(batches) == 1:  # A loop of one costs XLA:CPU its parallel matrix products.
            state, metrics = update(state, split, batches[0])
            return state, jax.tree.map(lambda value: value[None], metrics)
        return jax.lax.scan(lambda state, batch: update(state, split, batch), state, batches)

    return jax.jit(
        call,
        donate_argnums=0,
        in_shardings=(everywhere, everywhere, mesh_lib.sharded(mesh, axis=1)),
        out_shardings=everywhere,
    )


def call_ranges(start: int, stop: int, steps_per_call: int) -> list[tuple[int, int]]:
    """The (first, end) of each call's steps from `start` to `stop`.

    Calls end at multiples of `steps_per_call`, so that a resumed run makes the calls that an
    uninterrupted one makes.
    """
    if start >= stop:
        return []
    first_border = (start // steps_per_call + 1) * steps_per_call
    return list(itertools.pairwise([start, *range(first_border, stop, steps_per_call), stop]))


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

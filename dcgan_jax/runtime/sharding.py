"""A mesh with one axis over all devices: states are replicated, batches are sharded along it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dcgan_jax.runtime.errors import UserError

AXIS = 'data'
REPLICATED, SHARDED = PartitionSpec(), PartitionSpec(AXIS)  # for `jax.shard_map`


def create_mesh(batch_size: int | None = None) -> Mesh:
    """A one-dimensional mesh over all devices of all processes.

    Raises:
        UserError: a batch is given that can't be divided evenly among them.
    """
    devices = jax.devices()
    if batch_size and batch_size % len(devices):
        raise UserError(
            f'config.batch_size={batch_size} is not divisible by the {len(devices)} devices: '
            f'use {-(-batch_size // len(devices)) * len(devices)}, say'
        )
    return Mesh(np.asarray(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, REPLICATED)


def sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Axis number `axis` divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Puts an array that every process has where `sharding` says; nothing is sent."""
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def abstract(mesh: Mesh, shapes: Any) -> Any:
    """A tree of shapes as `jax.ShapeDtypeStruct`s that are replicated over the mesh."""
    placed = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), shapes
    )

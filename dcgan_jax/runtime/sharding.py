"""Where arrays live: one mesh axis over all devices; batches, and states if asked, along it."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dcgan_jax.runtime.errors import UserError

AXIS = 'data'
ALL, PART = PartitionSpec(), PartitionSpec(AXIS)  # for `jax.shard_map`
SHARDINGS = ('replicated', 'fsdp')
_SMALLEST = 2**12  # Elements; gathering smaller arrays costs more than the memory it saves.


def create(batch_size: int | None = None) -> Mesh:
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
    return NamedSharding(mesh, ALL)


def sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Axis number `axis` divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Puts an array that every process has where `sharding` says; nothing is sent."""
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def abstract(mesh: Mesh, shapes: Any, sharding: str = 'replicated') -> Any:
    """Shapes as `jax.ShapeDtypeStruct`s that say where the arrays live.

    Args:
        mesh: over all devices.
        shapes: a tree of shapes and types.
        sharding: 'replicated', or 'fsdp': the longest axis of each large array that the devices
            divide evenly is divided among them (Zhao et al. 2023, arXiv:2304.11277).
    """

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        placed = replicated(mesh) if sharding == 'replicated' else _divided(mesh, leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)

    return jax.tree.map(place, shapes)


def _divided(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    axes = [axis for axis, length in enumerate(shape) if length % mesh.size == 0]
    if math.prod(shape) < _SMALLEST or not axes:
        return replicated(mesh)
    return sharded(mesh, max(axes, key=lambda axis: shape[axis]))

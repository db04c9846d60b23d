"""Data parallelism: a one-dimensional mesh, replicated states and sharded batches."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dcgan_jax.runtime import jax_settings
from dcgan_jax.runtime.errors import UserError

AXIS = 'data'
REPLICATED, SHARDED = PartitionSpec(), PartitionSpec(AXIS)  # For `jax.shard_map`.


def create_mesh(batch_size: int | None = None) -> Mesh:
    """Create a one-dimensional mesh over all devices of all processes.

    Raises:
        UserError: If `batch_size` is not divisible by the number of devices, or if JAX's settings
            are not supported (see `jax_settings.check`).
    """
    jax_settings.check()
    devices = jax.devices()
    if batch_size and batch_size % len(devices):
        raise UserError(
            f'config.batch_size={batch_size} is not divisible by the {len(devices)} devices: '
            f'use {-(-batch_size // len(devices)) * len(devices)}'
        )
    return Mesh(np.asarray(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return a sharding that replicates an array on every device."""
    return NamedSharding(mesh, REPLICATED)


def sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return a sharding that divides axis `axis` among the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Place an array on the devices without communication; every process has the whole array."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def abstract(mesh: Mesh, shapes: Any) -> Any:
    """Return a tree of shapes as `jax.ShapeDtypeStruct`s that are replicated over the mesh."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )

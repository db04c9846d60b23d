"""Where arrays live: one mesh axis over all devices, batches sharded along it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dcgan_jax.errors import UserError

AXIS = 'data'


def create(batch_size: int) -> Mesh:
    """A one-dimensional mesh over all devices of all processes.

    Raises:
        UserError: the batch can't be divided evenly among them.
    """
    devices = jax.devices()
    if batch_size % len(devices):
        raise UserError(
            f'config.batch_size={batch_size} is not divisible by the {len(devices)} devices: '
            f'use {-(-batch_size // len(devices)) * len(devices)}, say'
        )
    return Mesh(np.asarray(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Axis number `axis` divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def abstract(mesh: Mesh, shapes: Any) -> Any:
    """Shapes as replicated `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), shapes
    )

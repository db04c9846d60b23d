import jax
import numpy as np
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from dcgan_jax.runtime import sharding

MESH = AbstractMesh((8,), (sharding.AXIS,))


def test_states_are_replicated_and_batches_are_sharded():
    leaf = sharding.abstract(MESH, {'leaf': jax.ShapeDtypeStruct((8, 4), np.float32)})['leaf']
    assert (leaf.shape, leaf.dtype, leaf.sharding.spec) == ((8, 4), np.float32, P())
    assert sharding.sharded(MESH).spec == P('data')
    assert sharding.sharded(MESH, axis=1).spec == P(None, 'data')

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from dcgan_jax.runtime import sharding

MESH = AbstractMesh((8,), (sharding.AXIS,))


@pytest.mark.parametrize(
    ('shape', 'spec'),
    [
        ((4, 1024), P(None, 'data')),  # the only axis that eight divide
        ((512, 4096), P(None, 'data')),  # the longer of two
        ((4096, 512), P('data')),
        ((4, 4, 256, 128), P(None, None, 'data')),
        ((100, 8191), P()),  # none divides evenly
        ((8, 8), P()),  # small
        ((), P()),
    ],
)
def test_large_arrays_are_divided_by_their_longest_axis(shape, spec):
    leaf = jax.ShapeDtypeStruct(shape, np.float32)
    divided = sharding.abstract(MESH, {'leaf': leaf}, 'fsdp')['leaf']
    assert (divided.shape, divided.sharding.spec) == (shape, spec)
    assert sharding.abstract(MESH, leaf).sharding.spec == P()

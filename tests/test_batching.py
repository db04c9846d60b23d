"""Batches of a fixed size for jitted functions."""

import numpy as np
import pytest

from dcgan_jax.runtime.batching import map_batches


@pytest.mark.parametrize(
    ('total', 'sizes'), [(1, [1]), (3, [3]), (4, [4]), (9, [4, 4, 4]), (8, [4, 4])]
)
def test_only_the_last_of_several_batches_is_padded(total, sizes):
    found = []

    def double(batch):
        found.append(len(batch))
        return 2 * batch

    rows = np.arange(2 * total).reshape(total, 2)
    np.testing.assert_array_equal(map_batches(double, 4, 'Test', rows), 2 * rows)
    assert found == sizes

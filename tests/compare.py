"""States side by side; their static parts (functions) are never the same object."""

import flax
import jax
import numpy as np


def assert_equal_states(actual, expected):
    jax.tree.map(
        np.testing.assert_array_equal, *map(flax.serialization.to_state_dict, (actual, expected))
    )


def assert_close_states(actual, expected, **tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
        *map(flax.serialization.to_state_dict, (actual, expected)),
    )

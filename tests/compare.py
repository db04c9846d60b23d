"""Comparison of states without their static fields (functions), which differ between objects."""

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

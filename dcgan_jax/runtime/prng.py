"""Random numbers are functions of (seed, role, index): each role has keys of its own."""

import enum

import jax


class Purpose(enum.IntEnum):
    """What random numbers of a run are for."""

    WEIGHTS = 0  # at step 0
    STEP = 1  # latents and dropout of an update, by step
    STANDING = 2  # latents that re-estimate BatchNorm's statistics
    SAMPLES = 3  # latents of samples, by index
    SEARCH = 4  # latents that searches start from


def purpose_key(seed: int, role: Purpose) -> jax.Array:
    """The key of a role; fold the step or index into it."""
    return jax.random.fold_in(jax.random.key(seed), role)

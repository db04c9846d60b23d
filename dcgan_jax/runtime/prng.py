"""Random keys that are functions of (seed, purpose, index)."""

import enum

import jax


class Purpose(enum.IntEnum):
    """Uses of random numbers in a run. The values seed the streams: do not change them."""

    INIT = 0  # Initial parameters.
    STEP = 1  # Latents, augmentation and dropout of a training step.
    STANDING_STATISTICS = 2  # Latents that estimate the standing BatchNorm statistics.
    SAMPLES = 3  # Latents of samples, by index.
    LATENT_OPTIMIZATION = 4  # Initial latents of latent optimization.


def purpose_key(seed: int, purpose: Purpose) -> jax.Array:
    """Return the key for a purpose; the caller folds the step or index into it.

    The random numbers do not depend on `JAX_DEFAULT_PRNG_IMPL`.
    """
    return jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), purpose)

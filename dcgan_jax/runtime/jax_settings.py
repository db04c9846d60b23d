"""Checks of JAX's settings."""

import jax

from dcgan_jax.runtime.errors import UserError


def check() -> None:
    """Check that JAX has a device, and that random numbers and types are the expected ones.

    Raises:
        UserError: If JAX cannot start, or if a setting changes types or random numbers, or
            disables jit.
    """
    if jax.config.jax_enable_x64:
        raise UserError('JAX_ENABLE_X64 is not supported, because runs use 32-bit types: unset it')
    if not jax.config.jax_threefry_partitionable:
        raise UserError(
            'JAX_THREEFRY_PARTITIONABLE=false is not supported, because it changes the random '
            'numbers of a run: unset it'
        )
    if jax.config.jax_disable_jit:
        raise UserError(
            'JAX_DISABLE_JIT is not supported, because checkpoints require jax.jit: unset it'
        )
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # JAX asserts that the CUDA plugin exists.
        reason = str(error).strip().partition('\n')[0] or 'the plugin of the platform is missing'
        raise UserError(
            f'JAX cannot start ({reason}): install JAX for your accelerator and its driver, or set '
            'JAX_PLATFORMS=cpu'
        ) from error

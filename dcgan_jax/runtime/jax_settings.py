"""Import of JAX and checks of its settings."""

from types import ModuleType

from dcgan_jax.runtime.errors import UserError

_TRANSFER_GUARDS = (
    'jax_transfer_guard', 'jax_transfer_guard_host_to_device',
    'jax_transfer_guard_device_to_host', 'jax_transfer_guard_device_to_device',
)  # fmt: skip


def import_jax() -> ModuleType:
    """Import JAX, which reads its environment variables, and return the module.

    Raises:
        UserError: If an environment variable has an invalid value.
    """
    try:
        import jax
    except ValueError as error:
        raise UserError(
            f'JAX cannot be imported ({error}): correct or unset the environment variable of '
            'this flag'
        ) from error
    return jax


def check() -> None:
    """Check that JAX has a device, and that random numbers and types are the expected ones.

    Raises:
        UserError: If JAX cannot start, or if a setting changes types or random numbers, or
            disables jit or transfers.
    """
    jax = import_jax()
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
    for name in _TRANSFER_GUARDS:
        if str(getattr(jax.config, name)).startswith('disallow'):
            raise UserError(
                f'{name.upper()}={getattr(jax.config, name)} is not supported, because runs '
                'transfer data implicitly: unset it'
            )
    check_devices()


def check_devices() -> None:
    """Check that JAX has a device.

    Raises:
        UserError: If JAX cannot start.
    """
    jax = import_jax()
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # JAX asserts that the CUDA plugin exists.
        reason = str(error).strip().partition('\n')[0] or 'the plugin of the platform is missing'
        raise UserError(
            f'JAX cannot start ({reason}): install JAX for your accelerator and its driver, or set '
            'JAX_PLATFORMS=cpu'
        ) from error

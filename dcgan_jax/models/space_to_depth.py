"""Space-to-depth: a convolution of stride s as a convolution of stride 1 over s x s phases."""

import jax
import jax.numpy as jnp


def padding_before(size: int, k: int, strides: int) -> int:
    """Return the number of zeros that 'SAME' padding adds before an axis (TensorFlow's rule)."""
    return max((-(-size // strides) - 1) * strides + k - size, 0) // 2


def taps(kernel: jax.Array, strides: int, *, transposed: bool = False) -> jax.Array:
    """Split a kernel into r x r taps over the channels of all phases, where r = ceil(k / s).

    Args:
      kernel: [k, k, C_in, C_out]; padded with zeros if s does not divide k.
      strides: Stride s.
      transposed: Whether to rotate the kernel by 180 degrees; its shape is then
        [k, k, C_out, C_in].

    Returns:
      [r^2, s^2 C_in, C_out], or [r^2, C_out, s^2 C_in] if transposed.
    """
    if transposed:
        kernel = kernel[::-1, ::-1]
    count = -(-kernel.shape[0] // strides)
    excess = (0, count * strides - kernel.shape[0])
    kernel = jnp.pad(kernel, [excess, excess, (0, 0), (0, 0)])
    kernel = kernel.reshape(count, strides, count, strides, *kernel.shape[2:])
    if transposed:
        kernel = kernel.transpose(0, 2, 4, 1, 3, 5)
        return kernel.reshape(count**2, kernel.shape[2], -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(count**2, -1, kernel.shape[5])

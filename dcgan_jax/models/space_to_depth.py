"""The s x s phases of a strided 'SAME' convolution, over which its stride is 1 (space-to-depth)."""

import jax
import jax.numpy as jnp


def padding_before(size: int, k: int, strides: int) -> int:
    """Zeros that 'SAME' padding adds before an axis of `size`, by TensorFlow's rule."""
    return max((-(-size // strides) - 1) * strides + k - size, 0) // 2


def taps(kernel: jax.Array, strides: int, *, transposed: bool = False) -> jax.Array:
    """Splits a kernel: r x r taps over the channels of all phases, r = ceil(k / s).

    Args:
      kernel: [k, k, C_in, C_out]; zeros are added where s does not divide k.
      strides: s.
      transposed: rotate the kernel by 180 degrees; its shape is [k, k, C_out, C_in].

    Returns:
      [r^2, s^2 C_in, C_out], or transposed [r^2, C_out, s^2 C_in].
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

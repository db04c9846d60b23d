"""A 'SAME' convolution as one matrix product over the patches of the image (im2col).

The image is first split into its s x s phases (space-to-depth), so that a patch consists of a few
contiguous runs of memory. The patches have ceil(k / s)^2 times the size of the image, so this form
is used for images with few channels, for which `conv_winograd` spends most of its time outside of
matrix products.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from dcgan_jax.models import products, space_to_depth


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int,
    *,
    transposed: bool = False,
) -> jax.Array:
    """Convolve with 'SAME' padding; see `conv_winograd.conv` for the arguments and the result."""
    k, channels = kernel.shape[0], x.shape[3]
    sizes = [-(-size // strides) for size in x.shape[1:3]]
    taps = -(-k // strides)  # Taps per phase of the kernel, along one axis.

    padding = [
        (
            low := space_to_depth.padding_before(size, k, strides),
            (out + taps - 1) * strides - size - low,
        )
        for size, out in zip(x.shape[1:3], sizes, strict=True)
    ]
    x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    height, width = (size + taps - 1 for size in sizes)
    x = x.reshape(x.shape[0], height, strides, width, strides * channels).swapaxes(2, 3)
    x = x.reshape(x.shape[0], height, width, strides**2 * channels)
    shifts = itertools.product(range(taps), repeat=2)
    patches = [x[:, i : i + sizes[0], j : j + sizes[1]] for i, j in shifts]

    patches = lax.concatenate(patches, 3)

    weights = space_to_depth.taps(kernel, strides, transposed=transposed)
    if transposed:
        weights = weights.swapaxes(1, 2)
    weights = weights.reshape(-1, weights.shape[2])
    matrix = patches.reshape(math.prod(patches.shape[:3]), len(weights))
    y = products.einsum('tc,co->to', matrix, weights)
    return y.reshape(*patches.shape[:3], weights.shape[1])

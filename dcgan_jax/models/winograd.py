"""A 'SAME' convolution as matrix products alone, which XLA computes fast on CPUs.

1. A convolution of stride s is one of stride 1 over the s x s phases of the image (space-to-depth);
   the kernel splits in the same way, into r x r taps.
2. Winograd's minimal filtering F(m, r) (Lavin and Gray 2016, https://arxiv.org/abs/1509.09308)
   computes m outputs of r taps by m + r - 1 products instead of m r: it multiplies polynomials by
   their values at m + r - 2 points and at infinity. In two dimensions: (m + r - 1)^2 for m^2 r^2.
3. The values at all points are one product with a constant matrix, and so are the outputs. Between
   products there is only copying: XLA on CPUs would fuse sums and copies into slow scalar loops.

Autodiff of these steps gives matrix products again, so gradients of every order are fast too. The
rounding error is 2e-6 of the result (7e-6 for 5 taps), that of a direct convolution 4e-7.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dcgan_jax.models import patches

MAX_TAPS = 7

_TILE = 4  # outputs a tile along each axis; fewer where the taps leave fewer points
# With more points more digits are lost. The first set loses least of those tried, where it is long
# enough; the second of those with seven points.
_POINTS = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2), (0, 1, -1, 2, -2, 1 / 2, -1 / 2)


def conv(x: jax.Array, kernel: jax.Array, strides: int, *, turned: bool = False) -> jax.Array:
    """Convolves with 'SAME' padding; see `lowering.conv`, whose arguments and result are these.

    The type should be of 32 bits or more: there are sums before and after the products.

    With `turned` the kernel is taken turned by 180 degrees and its channels swapped: its shape is
    then [k, k, C_out, C_in].

    Raises:
      ValueError: for more than `MAX_TAPS` taps a phase, ceil(k / strides).
    """
    k, batch = kernel.shape[0], x.shape[0]
    taps = -(-k // strides)
    if taps > MAX_TAPS:
        raise ValueError(f'At most {MAX_TAPS} taps a phase, got {taps} for k={k}, s={strides}.')
    sizes = [-(-size // strides) for size in x.shape[1:3]]
    tile = min(_TILE, MAX_TAPS + 2 - taps, *sizes)
    counts = [-(-size // tile) for size in sizes]
    inputs, kernels, outputs = _transforms(tile, taps)

    values = _apply(inputs, _windows(x, k, strides, tile, counts))
    weights = _apply(kernels, _taps(kernel, strides, turned))
    products = lax.dot_general(values, weights, (((2,), (2 if turned else 1,)), ((0,), (0,))))
    y = _apply(outputs, products)

    y = y.reshape(tile, tile, batch, *counts, -1).transpose(2, 3, 0, 4, 1, 5)
    y = y.reshape(batch, counts[0] * tile, counts[1] * tile, -1)
    return y[:, : sizes[0], : sizes[1]]


def _windows(x: jax.Array, k: int, strides: int, tile: int, counts: Sequence[int]) -> jax.Array:
    """What each tile of outputs sees: [side^2, B * tiles, s^2 C], side = tile + taps - 1 phases.

    Args:
      x: [B, H, W, C].
      k: side of the kernel.
      strides: s.
      tile: outputs a tile along each axis.
      counts: tiles along each axis.
    """
    batch, *sizes, channels = x.shape
    side = tile + -(-k // strides) - 1
    shifts = -(-side // tile)  # a window reaches so many tiles, its own included
    grid = [count + shifts - 1 for count in counts]
    padding = [(0, 0)]
    for size, tiles in zip(sizes, grid, strict=True):
        low = patches.padding_before(size, k, strides)
        padding.append((low, tiles * tile * strides - size - low))
    x = jnp.pad(x, [*padding, (0, 0)])
    x = x.reshape(batch, grid[0], tile, strides, grid[1], tile, strides, channels)
    x = x.transpose(2, 5, 0, 1, 4, 3, 6, 7)  # the channels apart: so the copies run over them
    # Slices of tiles have one concatenation as gradient; strided windows have side^2 paddings.
    for axis, count in enumerate(counts):
        parts = []
        for shift in range(shifts):
            tiles = lax.slice_in_dim(x, shift, shift + count, axis=3 + axis)
            parts.append(lax.slice_in_dim(tiles, 0, min(tile, side - shift * tile), axis=axis))
        x = lax.concatenate(parts, axis)
    return x.reshape(side**2, -1, strides**2 * channels)


def _taps(kernel: jax.Array, strides: int, turned: bool) -> jax.Array:
    """Taps of the phases' kernel: [taps^2, s^2 C_in, C_out], or turned [.., C_out, s^2 C_in]."""
    if turned:
        kernel = kernel[::-1, ::-1]
    taps = -(-kernel.shape[0] // strides)
    excess = (0, taps * strides - kernel.shape[0])
    kernel = jnp.pad(kernel, [excess, excess, (0, 0), (0, 0)])
    kernel = kernel.reshape(taps, strides, taps, strides, *kernel.shape[2:])
    if turned:
        kernel = kernel.transpose(0, 2, 4, 1, 3, 5)
        return kernel.reshape(taps**2, kernel.shape[2], -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(taps**2, -1, kernel.shape[5])


def _apply(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Matrix @ x along x's first axis, in two dimensions: so XLA transposes no gradient."""
    y = jnp.dot(matrix.astype(x.dtype), x.reshape(len(x), -1))
    return y.reshape(-1, *x.shape[1:])


@functools.cache
def _transforms(tile: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices of F(tile x tile, taps x taps), float64; side = tile + taps - 1.

    Returns:
      From windows to their values at the points, [side^2, side^2]: the coefficients of
      prod (x - other points). From taps to theirs, [side^2, taps^2]: those of the taps' polynomial,
      over prod (point - other points). From products to outputs, [tile^2, side^2]: powers.
    """
    finite = tile + taps - 2
    points = np.array(next(p for p in _POINTS if len(p) >= finite)[:finite], float)
    inputs = np.zeros((finite + 1, finite + 1))
    kernels = np.zeros((finite + 1, taps))
    outputs = np.zeros((tile, finite + 1))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        inputs[i, :-1] = np.poly(others)[::-1]
        kernels[i] = point ** np.arange(taps) / np.prod(point - others)
        outputs[:, i] = point ** np.arange(tile)
    inputs[-1] = np.poly(points)[::-1]  # the last point is infinity
    kernels[-1, -1] = outputs[-1, -1] = 1
    return tuple(np.kron(matrix, matrix) for matrix in (inputs, kernels, outputs))

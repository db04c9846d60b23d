"""A 'SAME' convolution by Winograd's minimal filtering, as matrix products that are fast on CPUs.

1. A convolution of stride s is a convolution of stride 1 over the s x s phases of the image
   (space-to-depth); the kernel is split in the same way, into r x r taps.
2. F(m, r) (Lavin and Gray 2016, https://arxiv.org/abs/1509.09308) computes m outputs of r taps with
   m + r - 1 products instead of m r: it multiplies the values of two polynomials at m + r - 2
   points and at infinity, and interpolates. In two dimensions it needs (m + r - 1)^2
   instead of m^2 r^2 products.
3. For few taps, the transforms are a few additions (`_by_sums`). For more taps, XLA would fuse the
   additions into slow scalar loops, so the transforms are matrix products too (`_by_products`).

Gradients of every order consist of the same steps and are therefore fast too. The relative rounding
error is 1e-6 with 2 taps, 4e-6 with 3 and 1e-5 with more; that of a direct convolution is 4e-7.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dcgan_jax.models import products, space_to_depth

MAX_TAPS = 7  # Largest number of taps per phase, along one axis.

_FEW_TAPS = 2  # With 3 taps, sums are as slow as products and compile three times as long.
_POINTS = (0, 1, -1, 2, -2, 1 / 2, -1 / 2)  # More points would lose more precision.

_Grid = list[list[jax.Array]]  # Arrays of the same shape by row and column.
_Product = Callable[[jax.Array, jax.Array], jax.Array]


class _Tiling(NamedTuple):
    """Partition of the outputs into tiles.

    Attributes:
      taps: Taps of a phase of the kernel along one axis, r.
      tile: Outputs of a tile along one axis, m.
      sizes: Rows and columns of outputs.
      counts: Rows and columns of tiles.
    """

    taps: int
    tile: int
    sizes: tuple[int, int]
    counts: tuple[int, int]

    @property
    def side(self) -> int:
        """Number of phase pixels in the receptive field of a tile, along one axis."""
        return self.tile + self.taps - 1

    @property
    def reach(self) -> int:
        """Number of tiles in the receptive field of a tile, along one axis."""
        return -(-self.side // self.tile)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int,
    *,
    transposed: bool = False,
) -> jax.Array:
    """Convolve with 'SAME' padding; see `conv.conv`.

    Args:
      x: Images or features, [B, H, W, C_in], with a dtype of at least 32 bits.
      kernel: [k, k, C_in, C_out], of x's dtype.
      strides: 1 or 2, in both directions.
      transposed: Whether the kernel is given as [k, k, C_out, C_in] and rotated by 180 degrees.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), C_out], of x's dtype.

    Raises:
      ValueError: If there are more than `MAX_TAPS` taps per phase, ceil(k / strides).
    """
    k = kernel.shape[0]
    taps = -(-k // strides)
    if taps > MAX_TAPS:
        raise ValueError(f'At most {MAX_TAPS} taps per phase, got {taps} for k={k}, s={strides}.')
    sizes = tuple(-(-size // strides) for size in x.shape[1:3])
    by_sums = taps <= _FEW_TAPS
    tile = 2 if by_sums else min(4, MAX_TAPS + 2 - taps, *sizes)
    tiling = _Tiling(taps, tile, sizes, tuple(-(-size // tile) for size in sizes))
    form = _by_sums if by_sums else _by_products
    weights = space_to_depth.taps(kernel, strides, transposed=transposed)
    subscripts = 'tc,oc->to' if transposed else 'tc,co->to'
    product = functools.partial(products.einsum, subscripts)
    y = form(_tiles(x, k, strides, tiling), weights, tiling, product)
    y = y.reshape(tile, tile, x.shape[0], *tiling.counts, y.shape[2]).transpose(2, 3, 0, 4, 1, 5)
    rows, columns = (count * tile for count in tiling.counts)
    y = y.reshape(x.shape[0], rows, columns, y.shape[5])
    return y[:, : sizes[0], : sizes[1]]


def _tiles(x: jax.Array, k: int, strides: int, tiling: _Tiling) -> jax.Array:
    """Pad and tile an image: [B, rows of tiles, m, s, columns of tiles, m, s, C]."""
    batch, *sizes, channels = x.shape
    counts = [count + tiling.reach - 1 for count in tiling.counts]
    padding = [(0, 0)]
    for size, count in zip(sizes, counts, strict=True):
        low = space_to_depth.padding_before(size, k, strides)
        padding.append((low, count * tiling.tile * strides - size - low))
    x = jnp.pad(x, [*padding, (0, 0)])
    rows, columns = ((count, tiling.tile, strides) for count in counts)
    return x.reshape(batch, *rows, *columns, channels)


def _by_sums(tiles: jax.Array, taps: jax.Array, tiling: _Tiling, product: _Product) -> jax.Array:
    """Return the outputs [m^2, B * tiles, C_out] with one product per point."""
    inputs, kernels, outputs = _transforms(tiling.tile, tiling.taps)
    single = [tap.reshape(tap.shape[1:]) for tap in lax.split(taps, [1] * len(taps))]
    rows = range(0, len(single), tiling.taps)
    weights = _transform(kernels, [single[row : row + tiling.taps] for row in rows])
    values = _transform(inputs, _pixels(tiles, tiling))
    products = [
        [product(left, right) for left, right in zip(*lines, strict=True)]
        for lines in zip(values, weights, strict=True)
    ]
    return jnp.stack([corner for line in _transform(outputs, products) for corner in line])


def _pixels(tiles: jax.Array, tiling: _Tiling) -> _Grid:
    """Return the pixels in the receptive field of the tiles, each [B * tiles, s^2 C]."""
    m, s, channels = tiles.shape[2], tiles.shape[3], tiles.shape[7]
    tiles = tiles.transpose(0, 1, 2, 4, 5, 3, 6, 7)
    tiles = tiles.reshape(*tiles.shape[:5], s**2 * channels)
    # The gradient of `lax.split` is one concatenation; that of indexing is a sum of padded copies.
    corners = [lax.split(row, [1] * m, axis=4) for row in lax.split(tiles, [1] * m, axis=2)]
    grid = []
    for a in range(tiling.side):
        (i, row), line = divmod(a, m), []
        for b in range(tiling.side):
            j, column = divmod(b, m)
            corner = corners[row][column][:, i : i + tiling.counts[0], :, j : j + tiling.counts[1]]
            line.append(corner.reshape(math.prod(corner.shape[:-1]), s**2 * channels))
        grid.append(line)
    return grid


def _transform(matrix: np.ndarray, grid: _Grid) -> _Grid:
    """Return matrix @ grid @ matrix.T, skipping zeros."""
    across = [[_combine(coefficients, line) for coefficients in matrix] for line in grid]
    columns = list(zip(*across, strict=True))
    return [[_combine(coefficients, column) for column in columns] for coefficients in matrix]


def _combine(coefficients: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    terms = [a if c == 1 else float(c) * a for c, a in zip(coefficients, arrays, strict=True) if c]
    return functools.reduce(operator.add, terms)


def _by_products(
    tiles: jax.Array, taps: jax.Array, tiling: _Tiling, product: _Product
) -> jax.Array:
    """Compute the same outputs as `_by_sums`, with one batched product for all points."""
    inputs, kernels, outputs = (np.kron(m, m) for m in _transforms(tiling.tile, tiling.taps))
    values, weights = _apply(inputs, _windows(tiles, tiling)), _apply(kernels, taps)
    return _apply(outputs, jax.vmap(product)(values, weights))


def _windows(tiles: jax.Array, tiling: _Tiling) -> jax.Array:
    """Return the receptive fields of the tiles, [side^2, B * tiles, s^2 C]."""
    m, s, channels = tiles.shape[2], tiles.shape[3], tiles.shape[7]
    x = tiles.transpose(2, 5, 0, 1, 4, 3, 6, 7)  # Channels last, for contiguous copies.
    # The gradient of these slices pads `reach` arrays per axis; strided windows would pad side^2.
    for axis, count in enumerate(tiling.counts):
        parts = []
        for shift in range(tiling.reach):
            part = lax.slice_in_dim(x, shift, shift + count, axis=3 + axis)
            parts.append(lax.slice_in_dim(part, 0, min(m, tiling.side - shift * m), axis=axis))
        x = lax.concatenate(parts, axis)
    return x.reshape(tiling.side**2, math.prod(x.shape[2:5]), s**2 * channels)


def _apply(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Contract a matrix with x's first axis as a 2D product, whose gradient needs no transpose."""
    y = jnp.dot(matrix.astype(x.dtype), x.reshape(len(x), -1))
    return y.reshape(len(matrix), *x.shape[1:])


def _transforms(tile: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices of F(tile, taps) in float64; side = tile + taps - 1.

    Returns:
      Three matrices. From pixels to values at the points, [side, side]: each row has the
      coefficients of prod(x - other points). From taps to values, [side, taps]: each row evaluates
      the polynomial of the taps at a point and divides by prod(point - other points). From products
      to outputs, [tile, side]: each column has the powers of a point.
    """
    points = np.array(_POINTS[: tile + taps - 2], float)
    side = len(points) + 1
    inputs, kernels, outputs = (
        np.zeros((side, side)),
        np.zeros((side, taps)),
        np.zeros((tile, side)),
    )
    for i, point in enumerate(points):
        others = np.delete(points, i)
        inputs[i, :-1] = np.poly(others)[::-1]
        kernels[i] = point ** np.arange(taps) / np.prod(point - others)
        outputs[:, i] = point ** np.arange(tile)
    inputs[-1] = np.poly(points)[::-1]  # The last point is infinity.
    kernels[-1, -1] = outputs[-1, -1] = 1
    return inputs, kernels, outputs

"""A 'SAME' convolution as a few plain matrix products, which XLA computes fast on CPUs.

1. A convolution of stride s is one of stride 1 over the s x s phases of the image (space-to-depth);
   the kernel splits in the same way.
2. Winograd's minimal filtering F(2, r) (Lavin and Gray 2016, https://arxiv.org/abs/1509.09308)
   computes two outputs of r taps by r + 1 products instead of 2 r: it multiplies polynomials by
   their values at r points and at infinity. In two dimensions that is (r + 1)^2 instead of 4 r^2
   products.
3. Kernels of different r use the first r of the same points. So an axis may be cut into pieces
   (phases with fewer taps than others, or parts of a long kernel), whose products at a point are
   one matrix product, over the channels of all of them.

Autodiff of these steps gives matrix products again, so gradients of every order are fast too.
"""

import functools
import itertools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dcgan_jax.models import patches

# Larger tiles and more points save products and lose more time to additions (measured), and digits.
_TILE = 2  # outputs a tile along each axis
_POINTS = (0, 1, -1)
_MOST_TAPS = len(_POINTS) + 2 - _TILE

_Pair = tuple[int, int]  # of rows and columns: of groups, or of positions in a tile
_Grid = dict[_Pair, jax.Array]  # arrays of one shape by row and column
_Matrix = dict[int, dict[int, float]]  # {row: {column: coefficient that is not 0}}
_INFINITY = -1  # the row or column of that point


class _Piece(NamedTuple):
    """Consecutive taps along one axis of the stride-1 kernel, for some of its phases.

    Attributes:
      group: which phases, see `_groups`.
      start: the first tap.
      taps: how many, at most `_MOST_TAPS`.
    """

    group: int
    start: int
    taps: int


def conv(x: jax.Array, kernel: jax.Array, strides: int, *, turned: bool = False) -> jax.Array:
    """Convolves with 'SAME' padding; see `lowering.conv`, whose arguments and result are these.

    The type should be of 32 bits or more: the transforms add before they multiply.

    With `turned` the kernel is taken turned by 180 degrees and its channels swapped: its shape is
    then [k, k, C_out, C_in]. (Turning it beforehand would cost a transposition, here it is free.)
    """
    k = kernel.shape[0]
    height, width = (-(-size // strides) for size in x.shape[1:3])
    tiles, taps = _tiles(x, k, strides), _taps(kernel, strides, turned)

    factors: dict[_Pair, list[tuple[jax.Array, jax.Array]]] = {}
    pieces = _pieces(k, strides)
    for rows, columns in itertools.product(pieces, pieces):
        group = rows.group, columns.group
        pixels = _pixels(tiles[group], rows, columns, _halo(k, strides))
        pixels = _transform(pixels, _inputs(rows.taps), _inputs(columns.taps))
        weights = _transform(
            _cut(taps[group], rows, columns), _kernels(rows.taps), _kernels(columns.taps)
        )
        for point, block in pixels.items():
            factors.setdefault(point, []).append((block, weights[point]))
    products = {point: _dot(pairs, int(turned)) for point, pairs in factors.items()}

    outputs = _outputs(max(piece.taps for piece in pieces))
    corners = _transform(products, outputs, outputs)
    y = jnp.stack([corners[i, j] for i in range(_TILE) for j in range(_TILE)])
    counts = -(-height // _TILE), -(-width // _TILE)
    y = y.reshape(_TILE, _TILE, x.shape[0], *counts, -1).transpose(2, 3, 0, 4, 1, 5)
    y = y.reshape(x.shape[0], counts[0] * _TILE, counts[1] * _TILE, -1)
    return y[:, :height, :width]


def _groups(k: int, strides: int) -> int:
    """Groups of phases along an axis: one for each phase where their numbers of taps differ."""
    return strides if k % strides else 1


def _pieces(k: int, strides: int) -> list[_Piece]:
    """Cuts an axis of the kernel into as few pieces as the points allow."""
    pieces = []
    for group in range(_groups(k, strides)):
        taps = len(range(group, k, strides))
        count = -(-taps // _MOST_TAPS)
        cuts = [taps * index // count for index in range(count + 1)] if count else []
        pieces += [_Piece(group, start, stop - start) for start, stop in itertools.pairwise(cuts)]
    return pieces


def _tiles(x: jax.Array, k: int, strides: int) -> dict[_Pair, jax.Array]:
    """Pads x for a k x k kernel and cuts it into tiles of 2 x 2 pixels of s x s phases.

    Returns:
      For each pair of groups [B, rows of tiles, 2, columns of tiles, 2, channels of the group].
    """
    batch, *sizes, channels = x.shape
    counts = [-(-size // (strides * _TILE)) + _halo(k, strides) for size in sizes]
    padding = [(0, 0)]
    for size, count in zip(sizes, counts, strict=True):
        low = patches.padding_before(size, k, strides)
        padding.append((low, count * _TILE * strides - size - low))
    x = jnp.pad(x, [*padding, (0, 0)])
    x = x.reshape(batch, counts[0], _TILE, strides, counts[1], _TILE, strides * channels)
    x = x.transpose(0, 1, 2, 4, 5, 3, 6).reshape(batch, counts[0], _TILE, counts[1], _TILE, -1)
    groups = _groups(k, strides)
    phases = lax.split(x, [x.shape[-1] // groups**2] * groups**2, axis=5)
    return dict(zip(itertools.product(range(groups), repeat=2), phases, strict=True))


def _halo(k: int, strides: int) -> int:
    """Tiles beyond its own that a tile's outputs see, along an axis."""
    return (-(-k // strides) + _TILE - 2) // _TILE


def _taps(kernel: jax.Array, strides: int, turned: bool) -> dict[_Pair, _Grid]:
    """Splits a kernel: for each pair of groups its taps, each [channels, N] ([N, channels] turned).

    Like `_pixels` by `lax.split`, so that the kernel's gradient is one concatenation.
    """
    k = kernel.shape[0]
    flat = lax.split(kernel.reshape(-1, kernel.shape[3]), [kernel.shape[2]] * k**2)
    positions = itertools.product(range(k), repeat=2)
    single = dict(zip(positions, reversed(flat) if turned else flat, strict=True))
    phases = {
        (i, j): {
            (a // strides, b // strides): single[a, b]
            for a, b in single
            if (a % strides, b % strides) == (i, j)
        }
        for i, j in itertools.product(range(strides), repeat=2)
    }
    if _groups(k, strides) > 1:
        return phases
    return {
        (0, 0): {
            tap: lax.concatenate([phase[tap] for phase in phases.values()], int(turned))
            for tap in phases[0, 0]
        }
    }


def _pixels(tiles: jax.Array, rows: _Piece, columns: _Piece, halo: int) -> dict[_Pair, jax.Array]:
    """The pixels under each tap of a tile's outputs, [B * H / 2 * W / 2, channels].

    Args:
      tiles: [B, rows of tiles, 2, columns of tiles, 2, channels].
      rows: taps along the rows.
      columns: taps along the columns.
      halo: tiles beyond the last outputs, along an axis.
    """
    height, width = (tiles.shape[axis] - halo for axis in (1, 3))
    # The gradient of split is one concatenation; that of indexing is a sum of padded copies.
    ones = (1,) * _TILE
    corners = [lax.split(row, ones, axis=4) for row in lax.split(tiles, ones, axis=2)]
    pixels = {}
    for a, b in itertools.product(*(range(piece.taps + _TILE - 1) for piece in (rows, columns))):
        (i, row), (j, column) = divmod(rows.start + a, _TILE), divmod(columns.start + b, _TILE)
        corner = corners[row][column][:, i : i + height, :, j : j + width]
        pixels[a, b] = corner.reshape(-1, tiles.shape[-1])
    return pixels


def _cut(taps: _Grid, rows: _Piece, columns: _Piece) -> _Grid:
    """The taps of two pieces."""
    pairs = itertools.product(range(rows.taps), range(columns.taps))
    return {(i, j): taps[rows.start + i, columns.start + j] for i, j in pairs}


def _dot(pairs: list[tuple[jax.Array, jax.Array]], axis: int) -> jax.Array:
    """The sum of products [M, K] x [K, N] as one product; `axis` is that of K in the factors."""
    left, right = zip(*pairs, strict=True)
    return lax.dot_general(
        lax.concatenate(left, 1), lax.concatenate(right, axis), (((1,), (axis,)), ((), ()))
    )


def _transform(
    grid: dict[_Pair, jax.Array], rows: _Matrix, columns: _Matrix
) -> dict[_Pair, jax.Array]:
    """Computes rows @ grid @ columns.T for a grid of arrays of one shape."""
    across = {
        (i, column): _combine(coefficients, {j: grid[i, j] for j in coefficients})
        for column, coefficients in columns.items()
        for i in sorted({i for i, _ in grid})
    }
    return {
        (row, column): _combine(coefficients, {i: across[i, column] for i in coefficients})
        for row, coefficients in rows.items()
        for column in columns
    }


def _combine(coefficients: dict[int, float], arrays: dict[int, jax.Array]) -> jax.Array:
    terms = [arrays[i] if c == 1 else c * arrays[i] for i, c in coefficients.items()]
    return functools.reduce(operator.add, terms)


def _points(taps: int) -> tuple[float, ...]:
    return _POINTS[: taps + _TILE - 2]


def _inputs(taps: int) -> _Matrix:
    """From pixels to their values at the points: coefficients of prod (x - other points)."""
    points = _points(taps)
    roots = {i: points[:i] + points[i + 1 :] for i in range(len(points))} | {_INFINITY: points}
    return {i: _nonzero(np.atleast_1d(np.poly(others))[::-1]) for i, others in roots.items()}


def _kernels(taps: int) -> _Matrix:
    """From taps to the values of their polynomial at the points, over prod (point - others)."""
    points = np.array(_points(taps), float)
    values = {
        i: _nonzero(point ** np.arange(taps) / np.prod(point - np.delete(points, i)))
        for i, point in enumerate(points)
    }
    return values | {_INFINITY: {taps - 1: 1.0}}


def _outputs(taps: int) -> _Matrix:
    """From the products at the points to a tile's outputs."""
    powers = np.power.outer(np.array(_points(taps), float), np.arange(_TILE)).T
    rows = {i: _nonzero(row) for i, row in enumerate(powers)}
    rows[_TILE - 1][_INFINITY] = 1.0
    return rows


def _nonzero(row: np.ndarray) -> dict[int, float]:
    return {i: float(value) for i, value in enumerate(row) if value}

"""Square 'SAME' convolutions as pure functions, each with several lowerings.

A lowering is one way to compute the same numbers from the same parameters:

- 'xla': `lax.conv_general_dilated` and `lax.conv_transpose`, what GPUs and TPUs want.
- 'matmul': a few plain matrix products, for CPUs, where XLA has fast products but no fast gradient
  of a strided or transposed convolution.
- 'auto': 'matmul' where the program is compiled for a CPU, 'xla' elsewhere.

How 'matmul' works:

1. `_tiles`: a convolution of stride s is one of stride 1 over the s x s phases of the image,
   stacked as channels (space-to-depth); the kernel splits in the same way (`_taps`).
2. `_chunks`: that kernel is a sum of kernels of at most 3 x 3 taps.
3. `_winograd`: one of 2 x 2 taps takes 9 matrix products per 2 x 2 outputs instead of 16, one of
   3 x 3 takes 16 instead of 36.
4. A transposed convolution is the adjoint of a convolution, so it needs no code of its own.

Autodiff of these steps gives matrix products again, so gradients of every order are fast too.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

LOWERINGS = ('auto', 'matmul', 'xla')

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# Winograd's minimal filtering F(2, r) (Lavin and Gray 2016, https://arxiv.org/abs/1509.09308): from
# r + 1 inputs d and r taps g, two outputs are OUTPUT @ ((KERNEL @ g) * (INPUT @ d)), with r + 1
# products instead of 2 r. Whole numbers and halves keep the rounding error within a few times that
# of the direct sum, which larger tiles would not.
_TILE = 2
_INPUT = {
    1: ((1, 0), (0, 1)),
    2: ((1, -1, 0), (0, 1, 0), (0, 1, -1)),
    3: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
}
_KERNEL = {
    1: ((1,), (1,)),
    2: ((1, 0), (1, 1), (0, 1)),
    3: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
}
_OUTPUT = {
    1: ((1, 0), (0, 1)),
    2: ((1, 1, 0), (0, 1, -1)),
    3: ((1, 1, 1, 0), (0, 1, -1, -1)),
}

_Matrix = Sequence[Sequence[float]]
_Blocks = Sequence[Sequence[jax.Array]]  # equal shapes, by row and column


def conv(x: jax.Array, kernel: jax.Array, *, strides: int, lowering: str = 'auto') -> jax.Array:
    """Convolves with 'SAME' padding, like `lax.conv_general_dilated`.

    Zeros are added by TensorFlow's rule: max((ceil(H / strides) - 1) * strides + k - H, 0) in all,
    the smaller half before.

    Args:
      x: images or features, [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], of x's type.
      strides: 1 or 2, in both directions.
      lowering: one of `LOWERINGS`; changes the speed and the rounding, nothing else.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), C_out], of x's type.

    Raises:
      ValueError: if the kernel is not square, or strides or lowering is not one of the above.
    """
    return _lower(_conv_matmul, _conv_xla, x, kernel, strides, lowering)


def conv_transpose(
    x: jax.Array, kernel: jax.Array, *, strides: int, lowering: str = 'auto'
) -> jax.Array:
    """Convolves the zero-stuffed x with 'SAME' padding, like `lax.conv_transpose`.

    It is the adjoint in x of `conv` of a [H * strides, W * strides] image, with the kernel turned
    by 180 degrees and its channels swapped. Output row p is the sum of kernel[t] * x[i] over all
    p + t = strides * i + k - 1 - max(k - strides, 0) // 2. For k = 4, strides = 2 the geometry is
    that of PyTorch's ConvTranspose2d(..., 4, stride=2, padding=1), which stores the kernel turned.

    Args:
      x: features, [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], of x's type.
      strides: 1 or 2, in both directions.
      lowering: one of `LOWERINGS`; changes the speed and the rounding, nothing else.

    Returns:
      [B, H * strides, W * strides, C_out], of x's type.

    Raises:
      ValueError: if the kernel is not square, or strides or lowering is not one of the above.
    """
    return _lower(_conv_transpose_matmul, _conv_transpose_xla, x, kernel, strides, lowering)


def _lower(
    matmul: Callable[..., jax.Array],
    xla: Callable[..., jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    strides: int,
    lowering: str,
) -> jax.Array:
    """Checks the arguments and applies the function that `lowering` names."""
    if lowering not in LOWERINGS:
        raise ValueError(f'lowering must be one of {LOWERINGS}, got {lowering!r}.')
    if strides not in (1, 2):
        raise ValueError(f'strides must be 1 or 2, got {strides!r}.')
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f'The kernel must be square, got shape {kernel.shape}.')
    matmul, xla = (functools.partial(function, strides=strides) for function in (matmul, xla))
    if lowering == 'auto':
        return lax.platform_dependent(x, kernel, cpu=matmul, default=xla)
    return {'matmul': matmul, 'xla': xla}[lowering](x, kernel)


def _conv_xla(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), 'SAME', dimension_numbers=_DIMENSIONS
    )


def _conv_transpose_xla(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.conv_transpose(x, kernel, (strides, strides), 'SAME', dimension_numbers=_DIMENSIONS)


def _conv_transpose_matmul(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    batch, height, width, _ = x.shape
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    image = jax.ShapeDtypeStruct(
        (batch, height * strides, width * strides, kernel.shape[3]), x.dtype
    )
    adjoint = jax.linear_transpose(lambda y: _conv_matmul(y, turned, strides), image)
    return adjoint(x)[0]


def _conv_matmul(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    height, width = (-(-size // strides) for size in x.shape[1:3])
    # The transforms add before they multiply, which bfloat16 has not the digits for.
    dtype = x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32
    tiles = _tiles(x.astype(dtype), kernel.shape[0], strides)
    taps = _taps(kernel.astype(dtype), strides)
    chunks = _chunks(taps.shape[0])
    parts = [_winograd(tiles, taps, rows, columns) for rows in chunks for columns in chunks]
    return functools.reduce(operator.add, parts)[:, :height, :width].astype(x.dtype)


def _tiles(x: jax.Array, k: int, strides: int) -> jax.Array:
    """Pads x for a k x k kernel and cuts it into tiles of 2 x 2 pixels of s x s phases.

    Returns:
      [B, rows of tiles, 2, columns of tiles, 2, s * s * C].
    """
    batch, *sizes, channels = x.shape
    halo = -(-k // strides) // _TILE  # tiles that the last outputs see beyond their own
    tiles = [-(-size // (strides * _TILE)) + halo for size in sizes]
    padding = [(0, 0)]
    for size, count in zip(sizes, tiles, strict=True):
        low = max((-(-size // strides) - 1) * strides + k - size, 0) // 2
        padding.append((low, count * _TILE * strides - size - low))
    x = jnp.pad(x, [*padding, (0, 0)])
    x = x.reshape(batch, tiles[0], _TILE, strides, tiles[1], _TILE, strides * channels)
    return x.transpose(0, 1, 2, 4, 5, 3, 6).reshape(batch, tiles[0], _TILE, tiles[1], _TILE, -1)


def _taps(kernel: jax.Array, strides: int) -> jax.Array:
    """Splits a kernel into phases, [k, k, C, N] to [ceil(k / s), ceil(k / s), s * s * C, N]."""
    k, _, channels, features = kernel.shape
    taps = -(-k // strides)
    missing = strides * taps - k
    kernel = jnp.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0)))
    kernel = kernel.reshape(taps, strides, taps, strides, channels, features)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(taps, taps, -1, features)


def _chunks(taps: int) -> list[range]:
    """Cuts taps into ranges of at most 3; fewer ranges take fewer products."""
    return [range(start, min(start + 3, taps)) for start in range(0, taps, 3)]


def _winograd(tiles: jax.Array, taps: jax.Array, rows: range, columns: range) -> jax.Array:
    """Adds up the given rows and columns of taps for every tile.

    Args:
      tiles: [B, rows of tiles, 2, columns of tiles, 2, K].
      taps: [taps, taps, K, N].
      rows: consecutive rows of taps, at most 3.
      columns: consecutive columns of taps, at most 3.

    Returns:
      [B, H, W, N] with H and W even, perhaps one more than is wanted.
    """
    halo = taps.shape[0] // _TILE
    batch, height, width = tiles.shape[0], tiles.shape[1] - halo, tiles.shape[3] - halo
    # The gradient of split is one concatenation; that of indexing is a sum of padded copies.
    corners = [lax.split(row, (1, 1), axis=4) for row in lax.split(tiles, (1, 1), axis=2)]

    def inputs(row: int, column: int) -> jax.Array:
        """The pixels at one offset from the outputs' tiles, [B * H / 2 * W / 2, K]."""
        i, di = divmod(row, _TILE)
        j, dj = divmod(column, _TILE)
        pixels = corners[di][dj][:, i : i + height, :, j : j + width]
        return pixels.reshape(-1, tiles.shape[-1])

    offsets = [range(part.start, part.stop + 1) for part in (rows, columns)]
    blocks = [[inputs(row, column) for column in offsets[1]] for row in offsets[0]]
    weights = [[taps[row, column] for column in columns] for row in rows]
    sizes = len(rows), len(columns)
    blocks = _transform(_INPUT, sizes, blocks)
    weights = _transform(_KERNEL, sizes, weights)
    products = [list(map(jnp.dot, *pair)) for pair in zip(blocks, weights, strict=True)]
    y = jnp.array(_transform(_OUTPUT, sizes, products))
    y = y.reshape(_TILE, _TILE, batch, height, width, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, height * _TILE, width * _TILE, -1)


def _transform(matrices: dict[int, _Matrix], sizes: tuple[int, int], blocks: _Blocks) -> _Blocks:
    """Applies matrices[sizes[0]] down each column of blocks, matrices[sizes[1]] along each row."""
    columns = [_combine(matrices[sizes[0]], column) for column in zip(*blocks, strict=True)]
    return [_combine(matrices[sizes[1]], row) for row in zip(*columns, strict=True)]


def _combine(matrix: _Matrix, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Multiplies a small constant matrix with a vector of arrays, leaving out the zeros."""
    return [
        functools.reduce(
            operator.add,
            [a if c == 1 else c * a for c, a in zip(row, arrays, strict=True) if c],
        )
        for row in matrix
    ]

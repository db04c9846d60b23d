"""Restoration of large images in overlapping tiles, which limits memory use."""

import itertools
import math
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.sampling import MAX_PIXELS


def restore(
    function: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, generator: ConfigDict
) -> np.ndarray:
    """Apply a U-Net to images of any size.

    Images with a side above `tile_side` are divided into tiles, whose margins cover the receptive
    field of the U-Net. The result therefore equals that of the whole image up to rounding. Images
    are not divided if the norm uses statistics of each image ('layer', 'group' and 'instance'),
    which would differ between tiles.

    Args:
        function: Function from inputs `[N, h, w, C + 1]` to images, uint8 `[N, h, w, C]`.
        inputs: Degraded images with a mask channel, float32 `[N, H, W, C + 1]`; H and W are
            divisible by the product of the strides.
        generator: The U-Net's config, `config.generator`.

    Returns:
        Images, uint8 `[N, H, W, C]`.
    """
    side, margin = tile_side(generator), overlap(generator)
    sizes = inputs.shape[1:3]
    if max(sizes) <= side or generator.norm not in ('none', 'batch'):
        return function(inputs)
    rows, columns = (_tiles(size, side, margin) for size in sizes)
    result = np.empty((*inputs.shape[:3], inputs.shape[3] - 1), np.uint8)
    for index, row in itertools.product(range(len(inputs)), rows):
        tiles = np.stack([inputs[index, row.tile, column.tile] for column in columns])
        for column, pixels in zip(columns, function(tiles), strict=True):
            result[index, row.core, column.core] = pixels[row.within, column.within]
    return result


def tile_side(generator: ConfigDict) -> int:
    """Return the side of a tile in pixels, a multiple of the product of the strides."""
    multiple = math.prod(generator.strides)
    side = max(math.isqrt(MAX_PIXELS), 4 * overlap(generator))
    return side // multiple * multiple


def overlap(generator: ConfigDict) -> int:
    """Return the margin of a tile in pixels, an upper bound of the receptive field's radius.

    The margin is a multiple of the product of the strides, so that tiles are aligned with the
    outputs of all downsampling convolutions.
    """
    *strides, _ = generator.strides
    sizes = generator.kernel_sizes or (generator.kernel_size,) * len(generator.strides)
    distance, scale = sizes[-1] // 2, 1
    for size, stride in zip(sizes, strides, strict=False):
        size = max((size, *generator.branches))
        # Radii of the convolution and of the transposed convolution, which upsamples first.
        distance += (size // 2 + size // 2 + stride) * scale
        scale *= stride
    return -(-distance // scale) * scale


class _Tile:
    """A tile along one axis.

    Attributes:
        tile: Pixels of the image in the tile.
        core: Pixels of the image whose results are taken from this tile.
        within: Position of `core` in the tile.
    """

    def __init__(self, start: int, side: int, first: int, end: int):
        """Initialize a tile of `side` pixels from `start`, with the core `[first, end)`."""
        self.tile = slice(start, start + side)
        self.core = slice(first, end)
        self.within = slice(first - start, end - start)


def _tiles(size: int, side: int, margin: int) -> list[_Tile]:
    """Divide an axis into tiles with at least `margin` pixels on each side of their core."""
    if size <= side:
        return [_Tile(0, size, 0, size)]
    core = side - 2 * margin
    return [
        _Tile(min(max(first - margin, 0), size - side), side, first, min(first + core, size))
        for first in range(0, size, core)
    ]

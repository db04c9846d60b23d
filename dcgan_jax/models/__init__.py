"""Generators and discriminators as flax.linen modules, built from a config."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from dcgan_jax.errors import UserError
from dcgan_jax.models.dcgan import Discriminator, Generator


class Networks(NamedTuple):
    """The two players, without parameters."""

    generator: Generator
    discriminator: Discriminator


def build(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int = 0) -> Networks:
    """Builds the networks that `config` describes for images of `image_shape` (H, W, C).

    `num_classes` counts where `config.conditional`.

    Raises:
        UserError: base size and strides don't lead to that image size, or a discriminator of that
            many stages would shrink it to nothing.
    """
    height, width, channels = image_shape
    side = config.generator.base_size * math.prod(config.generator.strides)
    if (height, width) != (side, side):
        raise UserError(
            f'config.generator makes {side}x{side} images (base_size={config.generator.base_size}, '
            f'strides={tuple(config.generator.strides)}), the data set has {height}x{width}: '
            'change base_size or strides so that base_size * prod(strides) is the image size'
        )
    shrink = math.prod(config.discriminator.strides)
    if shrink > side:
        raise UserError(
            f'config.discriminator.strides={tuple(config.discriminator.strides)} shrink a '
            f'{side}x{side} image {shrink} times: use fewer stages or strides of 1'
        )
    if config.discriminator.block == 'residual' and side % shrink:
        raise UserError(
            f'config.discriminator.strides={tuple(config.discriminator.strides)} shrink images '
            f"{shrink} times, and block='residual' needs a side that is divisible by that, not "
            f'{side}: use fewer strides of 2'
        )
    _check_attention(config, side)
    if config.conditional and not num_classes:
        raise UserError(
            'config.conditional needs a data set with class labels: use another, or False'
        )
    shared = {
        'num_classes': num_classes if config.conditional else 0,
        'lowering': config.lowering,
        'dtype': jnp.dtype(config.dtype),
    }
    return Networks(
        Generator(out_channels=channels, **config.generator, **shared),
        Discriminator(**config.discriminator, **shared),
    )


def _check_attention(config: ConfigDict, side: int) -> None:
    """Refuses self-attention on a map that can't be halved."""
    for network, start in (('generator', config.generator.base_size), ('discriminator', side)):
        size = start
        for stage, stride in enumerate(config[network].strides):
            size = size * stride if network == 'generator' else -(-size // stride)
            if stage in config[network].attention and size % 2:
                raise UserError(
                    f'config.{network}.attention={tuple(config[network].attention)}: the map after '
                    f'stage {stage} has {size}x{size} positions, and attention needs an even side'
                )

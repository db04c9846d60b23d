"""Generators and discriminators as flax.linen modules, built from a config."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from dcgan_jax.data import captions, degradations
from dcgan_jax.models import unet
from dcgan_jax.models.dcgan import Discriminator, Generator
from dcgan_jax.models.unet import UNet
from dcgan_jax.runtime.errors import UserError


class Networks(NamedTuple):
    """The two players, without parameters."""

    generator: Generator | UNet
    discriminator: Discriminator


def build(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int = 0) -> Networks:
    """Builds the networks that `config` describes for images of `image_shape` (H, W, C).

    `num_classes` counts where `config.conditional`.

    Raises:
        UserError: base size and strides don't lead to that image size, or a discriminator of that
            many stages would shrink it to nothing.
    """
    side, _, channels = image_shape
    _check_generator(config, image_shape)
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
    wrong = config.text.mismatched if captions.is_used(config) else 0.0
    if wrong and len(captions.trained_classes(config, num_classes)) < 2:
        raise UserError(
            f'config.text.mismatched={wrong} takes captions of other classes, and the run has but '
            'one class: set it to 0'
        )
    shared = {
        'num_classes': num_classes * captions.num_captions(config) if config.conditional else 0,
        'caption_size': captions.embedding_size(config),
        'lowering': config.lowering,
        'dtype': jnp.dtype(config.dtype),
    }
    kept, kind = dict(config.generator), Generator
    if degradations.takes_images(config):
        kept, kind = unet.fields(kept), UNet
    return Networks(
        kind(out_channels=channels, **kept, **shared),
        Discriminator(**config.discriminator, predicts_rotation=config.loss.rotation > 0, **shared),
    )


def _check_generator(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Refuses a generator that makes images of another size."""
    height, width, channels = image_shape
    times, strides = math.prod(config.generator.strides), tuple(config.generator.strides)
    if not degradations.takes_images(config):
        side = config.generator.base_size * times
        if (height, width) != (side, side):
            raise UserError(
                f'config.generator makes {side}x{side} images '
                f'(base_size={config.generator.base_size}, strides={strides}), the data set has '
                f'{height}x{width}: change base_size or strides so that base_size * prod(strides) '
                'is the image size'
            )
        return
    if height % times:
        raise UserError(
            f'config.generator.strides={strides} shrink images {times} times, which does not '
            f'divide {height}x{width}: use fewer strides of 2'
        )
    kind, scale = config.input.kind, config.input.scale
    if kind == 'low_resolution' and height % scale:
        raise UserError(
            f'config.input.scale={scale} does not divide images of {height}x{width}: take 2 or 4'
        )
    if kind == 'grey' and channels != 3:
        raise UserError("config.input.kind='grey' needs images in colour: use another data set")


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

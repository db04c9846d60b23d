"""Generators and discriminators as flax.linen modules, built from a config."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from dcgan_jax.data import captions, degradations
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.models import unet
from dcgan_jax.models.dcgan import Discriminator, Generator
from dcgan_jax.models.unet import UNet
from dcgan_jax.runtime.errors import UserError


class Networks(NamedTuple):
    """The two networks as modules without parameters, and what they are conditioned on."""

    generator: Generator | UNet
    discriminator: Discriminator
    conditioner: Conditioner


def build(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int = 0) -> Networks:
    """Build the networks of a config.

    Args:
        config: The run's config.
        image_shape: (H, W, C) of the images.
        num_classes: Number of classes of the data set; only used by conditional runs.

    Raises:
        UserError: If the config does not fit the images or the classes.
    """
    side, _, channels = image_shape
    _check_generator(config, image_shape)
    stride = math.prod(config.discriminator.strides)
    if stride > side:
        raise UserError(
            f'config.discriminator.strides={tuple(config.discriminator.strides)} downsample '
            f'{side}x{side} images by {stride}: use fewer stages or strides of 1'
        )
    if config.discriminator.block == 'residual' and side % stride:
        raise UserError(
            f'config.discriminator.strides={tuple(config.discriminator.strides)} downsample images '
            f"by {stride}, and block='residual' needs an image size divisible by that, not {side}: "
            'use fewer strides of 2'
        )
    _check_attention(config, side)
    if config.conditional and not num_classes:
        raise UserError(
            'config.conditional=True needs a data set with class labels: use another data set, or '
            'set it to False'
        )
    num_conditions = num_classes * captions.captions_per_class(config) * config.conditional
    mismatched = config.text.mismatch_weight if captions.is_used(config) else 0.0
    conditioner = Conditioner.create(config, num_conditions)
    if mismatched and len(conditioner.classes) < 2:
        raise UserError(
            f'config.text.mismatch_weight={mismatched} needs captions of at least two classes, '
            'but the run has one: set it to 0'
        )
    shared = {
        'num_conditions': num_conditions,
        'caption_size': captions.embedding_size(config),
        'conv_impl': config.conv_impl,
        'dtype': jnp.dtype(config.dtype),
    }
    fields, generator = dict(config.generator), Generator
    if degradations.takes_images(config):
        fields, generator = unet.fields(fields), UNet
    return Networks(
        generator(out_channels=channels, **fields, **shared),
        Discriminator(
            **config.discriminator, predicts_rotation=config.loss.rotation_weight > 0, **shared
        ),
        conditioner,
    )


def _check_generator(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Raise `UserError` if the generator outputs images of another size or the input is invalid."""
    height, width, channels = image_shape
    stride, strides = math.prod(config.generator.strides), tuple(config.generator.strides)
    if not degradations.takes_images(config):
        side = config.generator.base_size * stride
        if (height, width) != (side, side):
            raise UserError(
                f'config.generator outputs {side}x{side} images '
                f'(base_size={config.generator.base_size}, strides={strides}), but the data set '
                f'has {height}x{width}: change base_size or strides so that base_size * '
                'prod(strides) is the image size'
            )
        return
    if height % stride:
        raise UserError(
            f'config.generator.strides={strides} downsample images by {stride}, which does not '
            f'divide {height}x{width}: use fewer strides of 2'
        )
    kind, scale = config.input.kind, config.input.scale
    if kind == 'low_resolution' and height % scale:
        raise UserError(
            f'config.input.scale={scale} does not divide images of {height}x{width}: use 2 or 4'
        )
    if kind == 'gray' and channels != 3:
        raise UserError("config.input.kind='gray' needs RGB images: use another data set")


def _check_attention(config: ConfigDict, side: int) -> None:
    """Raise `UserError` for self-attention on a map of odd size."""
    for network, start in (('generator', config.generator.base_size), ('discriminator', side)):
        size = start
        for stage, stride in enumerate(config[network].strides):
            size = size * stride if network == 'generator' else -(-size // stride)
            if stage in config[network].attention and size % 2:
                raise UserError(
                    f'config.{network}.attention={tuple(config[network].attention)}: the map after '
                    f'stage {stage} has {size}x{size} positions, but attention needs an even size'
                )

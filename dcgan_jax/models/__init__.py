"""Generators and discriminators as flax.linen modules, built from a config."""

import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from dcgan_jax.data import captions, degradations
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.models import layers
from dcgan_jax.models.blocks import ParallelConv
from dcgan_jax.models.conditioning import ConditionalEmbedding
from dcgan_jax.models.dcgan import Discriminator, Generator
from dcgan_jax.models.norms import Norm, normal_around_one
from dcgan_jax.models.unet import UNet
from dcgan_jax.runtime.errors import UserError


class Networks(NamedTuple):
    """The two networks as Flax modules, and the conditioner of both."""

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
        UserError: If the config is incompatible with the images or the classes.
    """
    side, _, channels = image_shape
    _check_generator(config, image_shape)
    stride = math.prod(config.discriminator.strides)
    if stride > side:
        raise UserError(
            f'config.discriminator.strides={tuple(config.discriminator.strides)} downsample '
            f'{side}x{side} images by {stride}: use fewer stages or strides of 1'
        )
    block = config.discriminator.block
    if block != 'conv' and side % stride:
        raise UserError(
            f'config.discriminator.strides={tuple(config.discriminator.strides)} downsample images '
            f'by {stride}, and block={block!r} needs an image size divisible by that, not {side}: '
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
    if degradations.takes_images(config):
        generator = _unet(config, channels)
    else:
        generator = _generator(config, channels, num_conditions)
    return Networks(generator, _discriminator(config, num_conditions), conditioner)


def _generator(config: ConfigDict, out_channels: int, num_conditions: int) -> Generator:
    network = config.generator
    return Generator(
        out_channels=out_channels,
        base_size=network.base_size,
        base_features=_scale_channels(network, network.base_features)[0],
        block=network.block,
        attention=network.attention,
        stem_features=_scale_channels(network, *network.stem_features),
        stem_norm=network.stem_norm,
        dense=_layer(layers.Dense, config, network),
        conv_transpose=_conv(layers.ConvTranspose, config, network),
        act=layers.ACTIVATIONS[network.activation](network.leaky_slope),
        num_conditions=num_conditions,
        caption_size=captions.embedding_size(config),
        **_common_fields(config, network, num_conditions),
    )


def _unet(config: ConfigDict, out_channels: int) -> UNet:
    network = config.generator
    return UNet(
        out_channels=out_channels,
        conv_transpose=_conv(layers.ConvTranspose, config, network),
        image_conv=functools.partial(
            _layer(layers.Conv, config, network, conv_impl=config.conv_impl),
            kernel_init=nn.initializers.zeros,  # Initially, the output equals the input.
            spectral_norm=False,
        ),
        act=layers.ACTIVATIONS[network.activation](network.leaky_slope),
        **_common_fields(config, network),
    )


def _discriminator(config: ConfigDict, num_conditions: int) -> Discriminator:
    network = config.discriminator
    return Discriminator(
        block=network.block,
        attention=network.attention,
        dropout_rate=network.dropout_rate,
        minibatch_stddev=network.minibatch_stddev,
        pack=network.pack,
        head=network.head,
        predicts_rotation=config.loss.rotation_weight > 0,
        dense=_layer(layers.Dense, config, network),
        embed=functools.partial(
            ConditionalEmbedding,
            num_conditions,
            embedding_init=layers.INITIALIZERS[network.weight_init](network.weight_stddev),
            spectral_norm=network.spectral_norm,
        ),
        act=layers.ACTIVATIONS['leaky_relu'](network.leaky_slope),
        num_conditions=num_conditions,
        caption_size=captions.embedding_size(config),
        **_common_fields(config, network),
    )


def _common_fields(
    config: ConfigDict, network: ConfigDict, num_conditions: int = 0
) -> dict[str, Any]:
    """Return the module fields that all networks share.

    Args:
        config: The run's config.
        network: The network's group in `config`.
        num_conditions: Number of classes or captions that norms are conditioned on; 0 for none.
    """
    stddev = network.weight_stddev
    return {
        'features': _scale_channels(network, *network.features),
        'kernel_sizes': network.kernel_sizes or (network.kernel_size,) * len(network.strides),
        'strides': network.strides,
        'conv': _conv(layers.Conv, config, network),
        'norm': functools.partial(
            Norm,
            network.norm,
            momentum=network.norm_momentum,
            epsilon=network.norm_epsilon,
            # As in DCGAN implementations, scales are N(1, 0.02) where weights are N(0, 0.02).
            scale_init=(
                normal_around_one(stddev)
                if network.weight_init == 'normal'
                else nn.initializers.ones
            ),
            caption_init=nn.initializers.normal(stddev),
            num_conditions=num_conditions,
        ),
        'dtype': jnp.dtype(config.dtype),
    }


def _layer(
    layer: layers.ModuleDef, config: ConfigDict, network: ConfigDict, **fields: Any
) -> layers.ModuleDef:
    """Bind the fields of `layers.Dense`, `layers.Conv` or `layers.ConvTranspose`."""
    return functools.partial(
        layer,
        use_bias=network.use_bias,
        dtype=jnp.dtype(config.dtype),
        kernel_init=layers.INITIALIZERS[network.weight_init](network.weight_stddev),
        spectral_norm=network.spectral_norm,
        **fields,
    )


def _conv(layer: layers.ModuleDef, config: ConfigDict, network: ConfigDict) -> layers.ModuleDef:
    """Bind the fields of a convolution, or of `ParallelConv` if `network.branches` is set."""
    conv = _layer(layer, config, network, conv_impl=config.conv_impl)
    if not network.branches:
        return conv
    return functools.partial(ParallelConv, conv=conv, branches=network.branches)


def _scale_channels(network: ConfigDict, *features: int) -> tuple[int, ...]:
    """Return numbers of channels scaled by `network.width`, at least 1."""
    return tuple(max(1, round(count * network.width)) for count in features)


def _check_generator(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Raise `UserError` if the size of the generator's outputs or its input kind is invalid."""
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
    """Raise `UserError` for self-attention on a feature map of odd size."""
    for network, start in (('generator', config.generator.base_size), ('discriminator', side)):
        size = start
        for stage, stride in enumerate(config[network].strides):
            size = size * stride if network == 'generator' else -(-size // stride)
            if stage in config[network].attention and size % 2:
                raise UserError(
                    f'config.{network}.attention={tuple(config[network].attention)}: the map after '
                    f'stage {stage} is {size}x{size}, but attention needs an even size: use '
                    'another stage or other strides'
                )

"""Residual blocks, parallel convolutions and resampling.

The field `conv` is a module class that is called with (features, kernel_size, strides), such as
`layers.Conv`. The field `norm` is `norms.Norm`. Their other fields are bound with
`functools.partial`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models.layers import Activation, ModuleDef


class ParallelConv(nn.Module):
    """Parallel convolutions as in Inception (Szegedy et al. 2015, arXiv:1409.4842, figure 2a).

    If the kernel is 1x1 or there are fewer features than branches, a single convolution is applied.

    Attributes:
        features: Total number of output channels.
        kernel_size: Kernel size if a single convolution is applied.
        strides: 1 or 2.
        conv: Convolution, `layers.Conv` or `layers.ConvTranspose`.
        branches: Kernel sizes of the branches.
    """

    features: int
    kernel_size: int
    strides: int
    conv: ModuleDef
    branches: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the convolutions to [B, H, W, C] and concatenate the results along channels."""
        parallel = self.kernel_size > 1 and self.features >= len(self.branches)
        sizes = self.branches if parallel else (self.kernel_size,)
        count, rest = divmod(self.features, len(sizes))
        outputs = [
            self.conv(count + (index < rest), size, self.strides, name=f'branch_{index}')(x)
            for index, size in enumerate(sizes)
        ]
        return jnp.concatenate(outputs, axis=-1)


class _ResidualBlock(nn.Module):
    """Base class of residual blocks.

    Attributes:
        features: Number of output channels.
        kernel_size: Kernel size of both convolutions.
        stride: Factor of upsampling or downsampling.
        conv: Convolution.
        norm: Normalization, which may be conditional in G.
        act: Activation.
    """

    features: int
    kernel_size: int
    stride: int
    conv: ModuleDef
    norm: ModuleDef
    act: Activation


class ResidualUp(_ResidualBlock):
    """Upsampling residual block (Miyato et al. 2018, figure 8b); see `_ResidualBlock`.

    The main path is norm, activation, upsampling, convolution, norm, activation, convolution.
    """

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Map [B, H, W, C] to [B, H * stride, W * stride, features]; see `Norm` for conditions."""
        y = self.act(self.norm(name='norm_0')(x, condition))
        y = upsample(y, self.stride)
        y = self.conv(self.features, self.kernel_size, 1, name='conv_0')(y)
        y = self.act(self.norm(name='norm_1')(y, condition))
        y = self.conv(self.features, self.kernel_size, 1, name='conv_1')(y)
        if self.stride > 1 or x.shape[-1] != self.features:
            # The convolution commutes with upsampling and is cheaper before it.
            x = upsample(self.conv(self.features, 1, 1, name='shortcut')(x), self.stride)
        return x + y


class ResidualDown(_ResidualBlock):
    """Downsampling residual block (Miyato et al. 2018, figure 8).

    Attributes:
        first: Whether the input is an image. Neither norm nor activation is applied to images. See
            `_ResidualBlock` for the other attributes.
    """

    first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C] to [B, H / stride, W / stride, features]."""
        y = x if self.first else self.act(self.norm(name='norm_0')(x))
        y = self.conv(self.features, self.kernel_size, 1, name='conv_0')(y)
        y = self.act(self.norm(name='norm_1')(y))
        y = self.conv(self.features, self.kernel_size, 1, name='conv_1')(y)
        y, x = downsample(y, self.stride), downsample(x, self.stride)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = self.conv(self.features, 1, 1, name='shortcut')(x)
        return x + y


class Blocks(NamedTuple):
    """Pair of pre-activation blocks.

    Attributes:
        up: Block of G, with the fields and the call signature of `ResidualUp`.
        down: Block of D, with the fields and the call signature of `ResidualDown`.
    """

    up: type[nn.Module]
    down: type[nn.Module]


# Blocks by config name; None means a convolution, a norm and an activation.
BLOCKS = {
    'conv': None,
    'residual': Blocks(ResidualUp, ResidualDown),
}


def upsample(x: jax.Array, factor: int) -> jax.Array:
    """Upsample [B, H, W, C] by nearest-neighbor interpolation."""
    if factor == 1:
        return x
    batch, height, width, channels = x.shape
    shape = (batch, height, factor, width, factor, channels)
    x = jnp.broadcast_to(x[:, :, None, :, None, :], shape)
    return x.reshape(batch, height * factor, width * factor, channels)


def downsample(x: jax.Array, factor: int) -> jax.Array:
    """Downsample [B, H, W, C] by average pooling."""
    if factor == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return jnp.mean(x, axis=(2, 4))

"""Building blocks of generators and discriminators, to be called in a module's `__call__`.

Each function takes the calling module `net`, reads its fields (kernel sizes, norm, activation, ...)
and creates submodules with the given name prefix. A stage is one convolution or a residual block.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers
from dcgan_jax.models.norms import normalize

# Initializers by config name, as functions of `weight_stddev`. Those based on fan-in or fan-out
# count all k * k taps of a kernel, but a transposed convolution of stride 2 applies only a quarter
# of them to each output pixel: for inputs of unit variance, 'he_normal' with 4x4 kernels gives a
# variance of 0.5 away from the border, where a convolution of stride 1 gives 2.
INITIALIZERS = {
    'normal': nn.initializers.normal,  # N(0, stddev), Radford et al. 2015, section 4.
    'orthogonal': lambda stddev: nn.initializers.orthogonal(),  # Saxe et al. 2014.
    'glorot_uniform': lambda stddev: nn.initializers.glorot_uniform(),  # Keras's default.
    'glorot_normal': lambda stddev: nn.initializers.glorot_normal(),
    'he_normal': lambda stddev: nn.initializers.he_normal(),
}
ACTIVATIONS = ('relu', 'leaky_relu')
BLOCKS = ('conv', 'residual')


def scale_channels(net: nn.Module, features: int) -> int:
    """Return the number of channels scaled by `net.width`, at least 1."""
    return max(1, round(features * net.width))


def dense(net: nn.Module, features: int, name: str, dtype: Any = None) -> layers.Dense:
    """Return a dense layer with `net`'s fields; `dtype` defaults to that of `net`."""
    return layers.Dense(
        features,
        use_bias=net.use_bias,
        dtype=net.dtype if dtype is None else dtype,
        kernel_init=INITIALIZERS[net.weight_init](net.weight_stddev),
        spectral_norm=net.spectral_norm,
        name=name,
    )


def convolve(
    net: nn.Module,
    layer: type[layers.Conv] | type[layers.ConvTranspose],
    x: jax.Array,
    features: int,
    kernel_size: int,
    stride: int,
    name: str,
) -> jax.Array:
    """Apply a convolution, or the parallel convolutions of `net.branches`.

    Branches are as in Inception (Szegedy et al. 2015, arXiv:1409.4842, figure 2a).
    """
    branches = net.branches if kernel_size > 1 and features >= len(net.branches) else ()
    sizes = branches or (kernel_size,)
    outputs = []
    for index, size in enumerate(sizes):
        channels = features // len(sizes) + (index < features % len(sizes))
        outputs.append(
            layer(
                channels,
                size,
                stride,
                use_bias=net.use_bias,
                dtype=net.dtype,
                kernel_init=INITIALIZERS[net.weight_init](net.weight_stddev),
                spectral_norm=net.spectral_norm,
                conv_impl=net.conv_impl,
                name=f'{name}_branch_{index}' if branches else name,
            )(x)
        )
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)


def kernel_size(net: nn.Module, index: int) -> int:
    """Return the kernel size of the convolution or block with the given index."""
    return net.kernel_sizes[index] if net.kernel_sizes else net.kernel_size


def residual_up(
    net: nn.Module,
    x: jax.Array,
    condition: jax.Array | None,
    features: int,
    size: int,
    stride: int,
    name: str,
    *,
    train: bool,
) -> jax.Array:
    """Apply an upsampling residual block (Miyato et al. 2018, figure 8b).

    The main path is norm, activation, upsampling, convolution, norm, activation, convolution.

    Args:
        net: The calling generator.
        x: Map [B, H, W, C].
        condition: See `conditioning.select`.
        features: Number of output channels.
        size: Kernel size.
        stride: Upsampling factor.
        name: Prefix of the submodules' names.
        train: Whether to use batch statistics.

    Returns:
        Map [B, H * stride, W * stride, features].
    """
    y = net.activate(normalize(net, x, condition, train=train, name=f'{name}_norm_0'))
    y = convolve(net, layers.Conv, upsample(y, stride), features, size, 1, f'{name}_conv_0')
    y = net.activate(normalize(net, y, condition, train=train, name=f'{name}_norm_1'))
    y = convolve(net, layers.Conv, y, features, size, 1, f'{name}_conv_1')
    if stride > 1 or x.shape[-1] != features:
        # The convolution commutes with upsampling and is cheaper before it.
        x = upsample(convolve(net, layers.Conv, x, features, 1, 1, f'{name}_shortcut'), stride)
    return x + y


def residual_down(
    net: nn.Module,
    x: jax.Array,
    features: int,
    size: int,
    stride: int,
    name: str,
    *,
    first: bool,
    train: bool,
) -> jax.Array:
    """Apply a downsampling residual block (Miyato et al. 2018, figure 8).

    Args:
        net: The calling discriminator.
        x: Map [B, H, W, C].
        features: Number of output channels.
        size: Kernel size.
        stride: Downsampling factor.
        name: Prefix of the submodules' names.
        first: Whether x is an image, to which no norm and activation are applied.
        train: Whether to use batch statistics.

    Returns:
        Map [B, H / stride, W / stride, features].
    """
    y = x
    if not first:
        y = net.activate(normalize(net, y, None, train=train, name=f'{name}_norm_0'))
    y = convolve(net, layers.Conv, y, features, size, 1, f'{name}_conv_0')
    y = net.activate(normalize(net, y, None, train=train, name=f'{name}_norm_1'))
    y = downsample(convolve(net, layers.Conv, y, features, size, 1, f'{name}_conv_1'), stride)
    x = downsample(x, stride)
    if stride > 1 or x.shape[-1] != features:
        x = convolve(net, layers.Conv, x, features, 1, 1, f'{name}_shortcut')
    return x + y


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

"""What generators and discriminators are built of; functions for a module's `__call__`.

Each takes the module whose fields (kernel sizes, norm, activation, ...) say how, and makes
submodules of it, whose names begin with the stage's. A stage is one convolution, or a residual
block.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers
from dcgan_jax.models.norms import normalize

# Weight initializers by config name; each takes `weight_stddev`. Those by fan-in or fan-out count
# all k * k taps of a kernel, but a transposed convolution of stride 2 applies only a quarter of
# them to each output pixel: with 'he_normal', inputs of unit variance give 0.5 (4x4 kernels, away
# from the border) where a convolution of stride 1 gives 2.
INITIALIZERS = {
    'normal': nn.initializers.normal,  # N(0, stddev), Radford et al. 2015, section 4
    'orthogonal': lambda stddev: nn.initializers.orthogonal(),  # Saxe et al. 2014
    'glorot_uniform': lambda stddev: nn.initializers.glorot_uniform(),  # Keras's default
    'glorot_normal': lambda stddev: nn.initializers.glorot_normal(),
    'he_normal': lambda stddev: nn.initializers.he_normal(),
}
ACTIVATIONS = ('relu', 'leaky_relu')
BLOCKS = ('conv', 'residual')


def scale_channels(net: nn.Module, features: int) -> int:
    """Channels at `net.width`."""
    return max(1, round(features * net.width))


def dense(net: nn.Module, features: int, name: str, dtype: Any = None) -> layers.Dense:
    """Return a dense layer with `net`'s fields; `dtype` replaces that of `net`."""
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
    """One convolution, or `net.branches` of several sizes side by side, their channels together.

    Branches are those of Inception's blocks (Szegedy et al. 2015, arXiv:1409.4842, figure 2a).
    """
    branches = net.branches if kernel_size > 1 and features >= len(net.branches) else ()
    sizes = branches or (kernel_size,)
    outputs = []
    for index, size in enumerate(sizes):
        part = features // len(sizes) + (index < features % len(sizes))
        outputs.append(
            layer(
                part,
                size,
                stride,
                use_bias=net.use_bias,
                dtype=net.dtype,
                kernel_init=INITIALIZERS[net.weight_init](net.weight_stddev),
                spectral_norm=net.spectral_norm,
                lowering=net.lowering,
                name=f'{name}_branch_{index}' if branches else name,
            )(x)
        )
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)


def kernel_size(net: nn.Module, index: int) -> int:
    """The size of convolution (or block) number `index`."""
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
    """A generator's block (Miyato et al. 2018, figure 8b): norm, enlarge, convolve, norm, convolve.

    Maps [B, H, W, C] to [B, H * stride, W * stride, features].
    """
    y = net.activate(normalize(net, x, condition, train=train, name=f'{name}_norm_0'))
    y = convolve(net, layers.Conv, enlarge(y, stride), features, size, 1, f'{name}_conv_0')
    y = net.activate(normalize(net, y, condition, train=train, name=f'{name}_norm_1'))
    y = convolve(net, layers.Conv, y, features, size, 1, f'{name}_conv_1')
    if stride > 1 or x.shape[-1] != features:
        # Before it is enlarged: the same numbers for a quarter of the work.
        x = enlarge(convolve(net, layers.Conv, x, features, 1, 1, f'{name}_shortcut'), stride)
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
    """A discriminator's block (Miyato et al. 2018, figure 8): convolve twice, then shrink.

    Maps [B, H, W, C] to [B, H / stride, W / stride, features]. The first block gets an image, which
    is neither normalised nor activated.
    """
    y = x
    if not first:
        y = net.activate(normalize(net, y, None, train=train, name=f'{name}_norm_0'))
    y = convolve(net, layers.Conv, y, features, size, 1, f'{name}_conv_0')
    y = net.activate(normalize(net, y, None, train=train, name=f'{name}_norm_1'))
    y = shrink(convolve(net, layers.Conv, y, features, size, 1, f'{name}_conv_1'), stride)
    x = shrink(x, stride)
    if stride > 1 or x.shape[-1] != features:
        x = convolve(net, layers.Conv, x, features, 1, 1, f'{name}_shortcut')
    return x + y


def enlarge(x: jax.Array, times: int) -> jax.Array:
    """Repeats each pixel of [B, H, W, C] `times` times in both directions."""
    if times == 1:
        return x
    batch, height, width, channels = x.shape
    shape = (batch, height, times, width, times, channels)
    x = jnp.broadcast_to(x[:, :, None, :, None, :], shape)
    return x.reshape(batch, height * times, width * times, channels)


def shrink(x: jax.Array, times: int) -> jax.Array:
    """Averages [B, H, W, C] over squares of `times` pixels."""
    if times == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // times, times, width // times, times, channels)
    return jnp.mean(x, axis=(2, 4))

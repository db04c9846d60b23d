"""The DCGAN generator and discriminator (Radford et al. 2015, arXiv:1511.06434).

Their fields are the fields of `config.generator` and `config.discriminator`: every variant is a
config, none is a copy of a module.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers

# Weight initialisers by config name; each takes `weight_stddev`.
INITIALIZERS = {
    'normal': nn.initializers.normal,  # N(0, stddev), Radford et al. 2015, section 4
    'glorot_uniform': lambda stddev: nn.initializers.glorot_uniform(),  # Keras's default
}
NORMS = ('batch', 'none')
ACTIVATIONS = ('relu', 'leaky_relu')


def _scaled(features: int, width: float) -> int:
    return max(1, round(features * width))


def _batch_norm(net: nn.Module, x: jax.Array, train: bool, name: str) -> jax.Array:
    """BatchNorm as `net`'s fields want it; under `jit` over a mesh it sees the global batch."""
    # DCGAN implementations draw the scale from N(1, 0.02) where the weights are N(0, 0.02).
    jitter = nn.initializers.normal(net.weight_stddev)
    around_one = lambda key, shape, dtype: 1.0 + jitter(key, shape, dtype)  # noqa: E731
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=net.norm_momentum,
        epsilon=net.norm_epsilon,
        scale_init=around_one if net.weight_init == 'normal' else nn.initializers.ones,
        name=name,
    )
    return norm(x.astype(jnp.float32)).astype(net.dtype)


class Generator(nn.Module):
    """Latents to images: a dense stem, then transposed convolutions, then tanh.

    Attributes:
        out_channels: channels C of the images (1 or 3).
        base_size: height and width of the stem's map.
        base_features: channels of the stem's map.
        features: output channels of every transposed convolution but the last.
        strides: 1 or 2 for each transposed convolution, the last (to the image) included; the
            image side is base_size * prod(strides).
        kernel_size: side of every transposed convolution's kernel.
        stem_features: sizes of dense layers between the latents and the stem's map.
        stem_norm: whether the stem's map is normalised.
        norm: 'batch' or 'none', after every transposed convolution but the last.
        norm_momentum: share of the running statistics kept at each step.
        norm_epsilon: added to the variance.
        activation: 'relu' or 'leaky_relu'.
        leaky_slope: slope of 'leaky_relu' below zero.
        use_bias: biases in dense layers and convolutions.
        weight_init: weight initialiser, a key of `INITIALIZERS`.
        weight_stddev: its standard deviation, where it has one.
        width: scales every number of channels (and of stem features).
        lowering: how convolutions are computed, see `layers`; the result is the same.
        dtype: of the computation; parameters and statistics stay float32.
    """

    out_channels: int
    base_size: int
    base_features: int
    features: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_size: int
    stem_features: tuple[int, ...]
    stem_norm: bool
    norm: str
    norm_momentum: float
    norm_epsilon: float
    activation: str
    leaky_slope: float
    use_bias: bool
    weight_init: str
    weight_stddev: float
    width: float
    lowering: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Generates images.

        Args:
            z: latents `[B, latent_dim]`.
            train: normalise by the batch's own statistics, and update the running ones in the
                collection 'batch_stats'; otherwise use the running ones.

        Returns:
            `[B, H, W, out_channels]` in [-1, 1], in `dtype`.
        """
        kernel_init = INITIALIZERS[self.weight_init](self.weight_stddev)
        dense = _dense_factory(self, kernel_init)

        x = z.astype(self.dtype)
        for index, features in enumerate(self.stem_features):
            x = self._activate(dense(_scaled(features, self.width), f'stem_{index}')(x))
        base_features = _scaled(self.base_features, self.width)
        x = dense(self.base_size**2 * base_features, 'project')(x)
        x = x.reshape(-1, self.base_size, self.base_size, base_features)
        if self.stem_norm and self.norm == 'batch':
            x = _batch_norm(self, x, train, 'project_norm')
        x = self._activate(x)

        features = [_scaled(f, self.width) for f in self.features] + [self.out_channels]
        for index, (channels, stride) in enumerate(zip(features, self.strides, strict=True)):
            x = layers.ConvTranspose(
                channels,
                self.kernel_size,
                stride,
                use_bias=self.use_bias,
                dtype=self.dtype,
                kernel_init=kernel_init,
                lowering=self.lowering,
                name=f'conv_{index}',
            )(x)
            if index < len(self.features):
                if self.norm == 'batch':
                    x = _batch_norm(self, x, train, f'norm_{index}')
                x = self._activate(x)
        return jnp.tanh(x)

    def _activate(self, x: jax.Array) -> jax.Array:
        return nn.relu(x) if self.activation == 'relu' else nn.leaky_relu(x, self.leaky_slope)


class Discriminator(nn.Module):
    """Images to one logit each: convolutions with LeakyReLU, then one dense layer.

    Attributes:
        features: output channels of every convolution.
        strides: 1 or 2 for each convolution.
        kernel_size: side of every convolution's kernel.
        norm: 'batch' or 'none', after every convolution but the first.
        norm_momentum: share of the running statistics kept at each step.
        norm_epsilon: added to the variance.
        leaky_slope: slope of LeakyReLU below zero.
        dropout_rate: share of activations dropped after every convolution while training.
        use_bias: biases in convolutions and the dense layer.
        weight_init: weight initialiser, a key of `INITIALIZERS`.
        weight_stddev: its standard deviation, where it has one.
        width: scales every number of channels.
        lowering: how convolutions are computed, see `layers`; the result is the same.
        dtype: of the computation; parameters, statistics and logits stay float32.
    """

    features: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_size: int
    norm: str
    norm_momentum: float
    norm_epsilon: float
    leaky_slope: float
    dropout_rate: float
    use_bias: bool
    weight_init: str
    weight_stddev: float
    width: float
    lowering: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Judges images.

        Args:
            images: `[B, H, W, C]` in [-1, 1].
            train: normalise by the batch's own statistics (and update the collection
                'batch_stats'), and drop activations by the stream 'dropout'.

        Returns:
            Logits, float32 `[B, 1]`; sigmoid(logit) is the probability that an image is real.
        """
        kernel_init = INITIALIZERS[self.weight_init](self.weight_stddev)
        x = images.astype(self.dtype)
        for index, (features, stride) in enumerate(zip(self.features, self.strides, strict=True)):
            x = layers.Conv(
                _scaled(features, self.width),
                self.kernel_size,
                stride,
                use_bias=self.use_bias,
                dtype=self.dtype,
                kernel_init=kernel_init,
                lowering=self.lowering,
                name=f'conv_{index}',
            )(x)
            if index > 0 and self.norm == 'batch':
                x = _batch_norm(self, x, train, f'norm_{index}')
            x = nn.leaky_relu(x, self.leaky_slope)
            if self.dropout_rate:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        return _dense_factory(self, kernel_init)(1, 'logit')(x).astype(jnp.float32)


def _dense_factory(net: nn.Module, kernel_init: Any) -> Callable[[int, str], nn.Dense]:
    return lambda features, name: nn.Dense(
        features, use_bias=net.use_bias, dtype=net.dtype, kernel_init=kernel_init, name=name
    )

"""U-Net generator from images to images."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import blocks, layers
from dcgan_jax.models.norms import normalize


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) that predicts a residual.

    The fields are a subset of those of `Generator`. `features` and `strides` describe the
    downsampling path; the upsampling path mirrors it, with skip connections (Isola et al. 2017,
    arXiv:1611.07004). The last stride is that of the output convolution and must be 1; this
    convolution has no spectral normalization. With strides of 1 the network is a plain CNN.

    Attributes:
        out_channels: Number of image channels.
    """

    out_channels: int
    features: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_size: int
    kernel_sizes: tuple[int, ...]
    branches: tuple[int, ...]
    norm: str
    norm_momentum: float
    norm_epsilon: float
    activation: str
    leaky_slope: float
    use_bias: bool
    weight_init: str
    weight_stddev: float
    spectral_norm: bool
    width: float
    num_conditions: int = 0
    caption_size: int = 0
    conv_impl: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: jax.Array, labels: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Restore images.

        Args:
            inputs: Degraded images with a mask channel, `[B, H, W, C + 1]`; see
                `dcgan_jax.data.degradations`.
            labels: Ignored.
            train: Whether to use the statistics of the batch and to update the running ones.

        Returns:
            Images, float32 `[B, H, W, C]`: the input plus the network's output where the mask is 1.
            Values outside of [-1, 1] are not clipped, so that gradients reach them.
        """
        del labels
        x = inputs.astype(self.dtype)
        skips, channels = [], [blocks.scale_channels(self, features) for features in self.features]
        for index, features in enumerate(channels):
            skips.append(x)
            x = self._stage(layers.Conv, x, features, index, f'down_{index}', train=train)
        for index in reversed(range(len(channels))):
            features = channels[max(index - 1, 0)]
            x = self._stage(layers.ConvTranspose, x, features, index, f'up_{index}', train=train)
            x = jnp.concatenate([x, skips[index]], axis=-1)
        x = layers.Conv(
            self.out_channels,
            blocks.kernel_size(self, len(channels)),
            1,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,  # The initial output is the input.
            conv_impl=self.conv_impl,
            name='image',
        )(x)
        known, mask = inputs[..., :-1], inputs[..., -1:]
        return known + mask * x.astype(jnp.float32)

    def _stage(
        self, layer: Any, x: jax.Array, features: int, index: int, name: str, *, train: bool
    ) -> jax.Array:
        size, stride = blocks.kernel_size(self, index), self.strides[index]
        x = blocks.convolve(self, layer, x, features, size, stride, f'{name}_conv')
        x = normalize(self, x, None, train=train, name=f'{name}_norm')
        return nn.relu(x) if self.activation == 'relu' else nn.leaky_relu(x, self.leaky_slope)


def fields(generator: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `config.generator` that a UNet has."""
    return {name: value for name, value in generator.items() if name in UNet.__annotations__}

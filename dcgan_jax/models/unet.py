"""A generator whose input is an image: what is missing of it, completed."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import blocks, layers
from dcgan_jax.models.norms import normalize


class UNet(nn.Module):
    """Images to images: a U-Net (Ronneberger et al. 2015, arXiv:1505.04597) that adds what lacks.

    Its fields are those of `config.generator` that mean something here; see `Generator` for them.
    Stages of `features` and `strides` go down, their mirror goes up, each joined to the map of the
    same size on the way down (Isola et al. 2017, arXiv:1611.07004); the last stride is that of the
    convolution to the image, which is 1; that one is never spectrally normalised. With strides of 1
    it is a plain convolutional network.

    Attributes:
        out_channels: channels C of the images.
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
    num_classes: int = 0
    caption_size: int = 0
    lowering: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: jax.Array, labels: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Completes images.

        Args:
            inputs: `[B, H, W, C + 1]`, see `dcgan_jax.data.degradations`.
            labels: not used.
            train: normalise by the batch's own statistics, and update the running ones.

        Returns:
            Float32 `[B, H, W, C]`: what is known, plus the network's output where that is allowed.
            About in [-1, 1]; nothing clips it, so that gradients reach what lies outside.
        """
        del labels
        x = inputs.astype(self.dtype)
        before, channels = [], [blocks.scale_channels(self, features) for features in self.features]
        for index, features in enumerate(channels):
            before.append(x)
            x = self._stage(layers.Conv, x, features, index, f'down_{index}', train=train)
        for index in reversed(range(len(channels))):
            features = channels[max(index - 1, 0)]
            x = self._stage(layers.ConvTranspose, x, features, index, f'up_{index}', train=train)
            x = jnp.concatenate([x, before[index]], axis=-1)
        x = layers.Conv(
            self.out_channels,
            blocks.kernel_size(self, len(channels)),
            1,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,  # Training starts from the image as it is.
            lowering=self.lowering,
            name='image',
        )(x)
        known, changeable = inputs[..., :-1], inputs[..., -1:]
        return known + changeable * x.astype(jnp.float32)

    def _stage(
        self, layer: Any, x: jax.Array, features: int, index: int, name: str, *, train: bool
    ) -> jax.Array:
        size, stride = blocks.kernel_size(self, index), self.strides[index]
        x = blocks.convolve(self, layer, x, features, size, stride, f'{name}_conv')
        x = normalize(self, x, None, train=train, name=f'{name}_norm')
        return nn.relu(x) if self.activation == 'relu' else nn.leaky_relu(x, self.leaky_slope)


def fields(generator: dict[str, Any]) -> dict[str, Any]:
    """Those of a `config.generator` that a UNet has."""
    return {name: value for name, value in generator.items() if name in UNet.__annotations__}

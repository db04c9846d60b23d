"""U-Net generator from images to images."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models.layers import Activation, ModuleDef


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) that predicts a residual.

    `features` and `strides` describe the downsampling path; the upsampling path mirrors it, with
    skip connections (Isola et al. 2017, arXiv:1611.07004). If all strides are 1, no feature map is
    downsampled.

    Attributes:
        out_channels: Number of image channels.
        features: Output channels of each stage of the downsampling path.
        kernel_sizes: Kernel sizes of each stage and of the output convolution.
        strides: 1 or 2 for each stage, and 1 for the output convolution.
        conv: Convolution of the downsampling path; see `layers.Conv`.
        conv_transpose: Convolution of the upsampling path; see `layers.ConvTranspose`.
        image_conv: Output convolution; see `layers.Conv`.
        norm: Normalization after every convolution but the last; see `norms.Norm`.
        act: Activation.
        dtype: Data type of the computation; parameters and statistics are float32.
        num_conditions: Always 0, because the network is unconditional.
    """

    out_channels: int
    features: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    strides: tuple[int, ...]
    conv: ModuleDef
    conv_transpose: ModuleDef
    image_conv: ModuleDef
    norm: ModuleDef
    act: Activation
    dtype: Any = jnp.float32
    num_conditions: int = 0

    @nn.compact
    def __call__(
        self, inputs: jax.Array, labels: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Restore degraded images.

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
        norm = functools.partial(self.norm, use_running_average=not train)
        *stages, (image_kernel_size, image_stride) = zip(
            self.kernel_sizes, self.strides, strict=True
        )
        x, skips = inputs.astype(self.dtype), []
        for index, (features, stage) in enumerate(zip(self.features, stages, strict=True)):
            skips.append(x)
            x = self.conv(features, *stage, name=f'down_{index}_conv')(x)
            x = self.act(norm(name=f'down_{index}_norm')(x))
        for index, stage in reversed(list(enumerate(stages))):
            features = self.features[max(index - 1, 0)]
            x = self.conv_transpose(features, *stage, name=f'up_{index}_conv')(x)
            x = self.act(norm(name=f'up_{index}_norm')(x))
            x = jnp.concatenate([x, skips[index]], axis=-1)
        x = self.image_conv(self.out_channels, image_kernel_size, image_stride, name='image')(x)
        known, mask = inputs[..., :-1], inputs[..., -1:]
        return known + mask * x.astype(jnp.float32)

"""Encoder from images to latents (f-AnoGAN: Schlegl et al. 2019)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers


class Encoder(nn.Module):
    """Encoder: convolutions of stride 2 down to 4x4, and a dense layer; latents have norm sqrt(d).

    Attributes:
        latent_dim: Size of a latent, d.
        features: Channels of the first stage; each further stage has twice as many.
        conv_impl: One of `dcgan_jax.models.conv.IMPLEMENTATIONS`.
    """

    latent_dim: int
    features: int = 64
    conv_impl: str = 'auto'

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images in [-1, 1], `[B, H, W, C]`, to latents, float32 `[B, latent_dim]`."""
        x, stage = images, 0
        init = nn.initializers.he_normal()
        while x.shape[1] > 4 or stage == 0:
            channels = self.features * 2**stage
            x = layers.Conv(
                channels, 4, 2, kernel_init=init, conv_impl=self.conv_impl, name=f'conv_{stage}'
            )(x)
            x = nn.GroupNorm(num_groups=None, group_size=min(16, channels), name=f'norm_{stage}')(x)
            x, stage = nn.leaky_relu(x, 0.2), stage + 1
        x = layers.Dense(self.latent_dim, name='latent')(x.reshape(len(x), -1))
        return x * (self.latent_dim**0.5) / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-8)


def fields(config: Any) -> dict[str, Any]:
    """Return the fields of `Encoder` for a run's config."""
    return {'latent_dim': config.latent_dim, 'conv_impl': config.conv_impl}

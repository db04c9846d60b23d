"""Layers that look at a whole map, or at other images of the batch."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers


class SelfAttention(nn.Module):
    """x + gamma * o(attention(x)) (SAGAN: Zhang et al. 2019, arXiv:1805.08318, eq. 1 to 3).

    Keys and values are max-pooled by 2, as the authors' code does; gamma starts at 0.

    Attributes:
        kernel_init: of the four 1x1 convolutions.
        spectral_norm: of those.
        dtype: of the computation.
    """

    kernel_init: Any
    spectral_norm: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C], H and W even, to the same shape."""
        batch, _, _, channels = x.shape

        def project(features: int, name: str) -> layers.Dense:
            return layers.Dense(
                features,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=self.kernel_init,
                spectral_norm=self.spectral_norm,
                name=name,
            )

        def pooled(y: jax.Array) -> jax.Array:
            return nn.max_pool(y, (2, 2), (2, 2)).reshape(batch, -1, y.shape[-1])

        small = max(channels // 8, 1)
        queries = project(small, 'query')(x).reshape(batch, -1, small)
        keys = pooled(project(small, 'key')(x))
        values = pooled(project(max(channels // 2, 1), 'value')(x))
        # Softmax and gamma's product are computed in float32: their gradients sum over positions.
        logits = jnp.einsum('bqc,bkc->bqk', queries, keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        attended = jnp.einsum('bqk,bkc->bqc', weights, values)
        attended = project(channels, 'out')(attended).reshape(x.shape)
        gamma = self.param('gamma', nn.initializers.zeros, ())
        y = x.astype(jnp.float32) + gamma * attended.astype(jnp.float32)
        return y.astype(x.dtype)


def minibatch_stddev(x: jax.Array, group: int) -> jax.Array:
    """Adds a channel that tells D how much images differ (Karras et al. 2018, arXiv:1710.10196, 3).

    Args:
        x: [B, H, W, C].
        group: images compared with each other: i, i + B / group, ...; divides B, or B is smaller
            and is one group.

    Returns:
        [B, H, W, C + 1] of x's dtype; the added channel holds the standard deviation within a
        group, computed in float32 and averaged over H, W and C.
    """
    batch, height, width, _ = x.shape
    group = min(group, batch)
    y = x.astype(jnp.float32).reshape(group, batch // group, -1)
    stddev = jnp.sqrt(jnp.var(y, axis=0) + 1e-8)
    level = jnp.tile(jnp.mean(stddev, axis=-1), group)
    plane = jnp.broadcast_to(level[:, None, None, None], (batch, height, width, 1))
    return jnp.concatenate([x, plane.astype(x.dtype)], axis=-1)

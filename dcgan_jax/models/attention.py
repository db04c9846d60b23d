"""Self-attention and minibatch standard deviation."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models.layers import ModuleDef


class SelfAttention(nn.Module):
    """Self-attention (SAGAN: Zhang et al. 2019, arXiv:1805.08318, eq. 1 to 3).

    The output is x + gamma * o(attention(x)), where gamma is initialized to 0. As in the authors'
    code, keys and values are max-pooled by 2.

    Attributes:
        dense: Dense layer, used for the four 1x1 convolutions; see `layers.Dense`.
    """

    dense: ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply self-attention to a feature map [B, H, W, C] with even H and W."""
        batch, _, _, channels = x.shape

        project = functools.partial(self.dense, use_bias=False)

        def pool(y: jax.Array) -> jax.Array:
            return nn.max_pool(y, (2, 2), (2, 2)).reshape(batch, -1, y.shape[-1])

        small = max(channels // 8, 1)
        queries = project(small, name='query')(x).reshape(batch, -1, small)
        keys = pool(project(small, name='key')(x))
        values = pool(project(max(channels // 2, 1), name='value')(x))
        # The softmax and the product with gamma use float32: their gradients sum over positions.
        logits = jnp.einsum('bqc,bkc->bqk', queries, keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        attended = jnp.einsum('bqk,bkc->bqc', weights, values)
        attended = project(channels, name='out')(attended).reshape(x.shape)
        gamma = self.param('gamma', nn.initializers.zeros, ())
        y = x.astype(jnp.float32) + gamma * attended.astype(jnp.float32)
        return y.astype(x.dtype)


def minibatch_stddev(x: jax.Array, group: int) -> jax.Array:
    """Append a channel with the standard deviation over a group of images.

    See Karras et al. 2018, arXiv:1710.10196, section 3.

    Args:
        x: Feature map [B, H, W, C].
        group: Number of images in a group. It must divide B, or be at least B to form a single
            group. A group has every (B / group)-th image.

    Returns:
        [B, H, W, C + 1], in x's dtype. The last channel is the standard deviation within the group,
        computed in float32 and averaged over H, W and C.
    """
    batch, height, width, _ = x.shape
    group = min(group, batch)
    y = x.astype(jnp.float32).reshape(group, batch // group, -1)
    stddev = jnp.sqrt(jnp.var(y, axis=0) + 1e-8)
    mean = jnp.tile(jnp.mean(stddev, axis=-1), group)
    channel = jnp.broadcast_to(mean[:, None, None, None], (batch, height, width, 1))
    return jnp.concatenate([x, channel.astype(x.dtype)], axis=-1)

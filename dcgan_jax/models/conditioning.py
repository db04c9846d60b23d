"""Conditioning of both networks on classes or on embedded captions."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers


def select(net: nn.Module, labels: jax.Array | None) -> jax.Array | None:
    """Return the condition of each image, for `embed`.

    Args:
        net: The calling module, with fields `num_conditions` and `caption_size`.
        labels: Indices of classes or captions, int32 [B].

    Returns:
        Classes, int32 [B]; or embeddings of captions [B, caption_size] from the non-trainable
        collection 'captions'; or None for an unconditional module.
    """
    if not net.num_conditions or not net.caption_size:
        return labels if net.num_conditions else None
    table = net.variable(
        'captions', 'table', jnp.zeros, (net.num_conditions, net.caption_size)
    ).value
    return jnp.asarray(table)[labels]


def embed(
    net: nn.Module,
    condition: jax.Array,
    features: int,
    init: layers.Initializer,
    name: str,
    spectral_norm: bool = False,
) -> jax.Array:
    """Embed the condition of each image, float32 [B, features].

    Classes have learned embeddings (Dumoulin et al. 2017, arXiv:1610.07629; Miyato & Koyama 2018,
    arXiv:1802.05637). Captions have a learned linear map, which also applies to unseen captions.
    """
    if condition.ndim == 1:
        embedding = layers.Embed(net.num_conditions, features, init, spectral_norm, name=name)
    else:
        embedding = layers.Dense(
            features, use_bias=False, kernel_init=init, spectral_norm=spectral_norm, name=name
        )
    return embedding(condition)

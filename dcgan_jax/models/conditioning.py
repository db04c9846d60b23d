"""Conditioning of both networks on classes or on embedded captions."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers


def select(net: nn.Module, labels: jax.Array | None) -> jax.Array | None:
    """The condition of each image, which `embed` maps to features.

    Args:
        net: the module that calls, with fields num_classes and caption_size.
        labels: classes or captions by number, int32 [B].

    Returns:
        Classes, int32 [B]; or vectors of captions [B, caption_size], from the collection
        'captions', which no gradient changes; None without either.
    """
    if not net.num_classes or not net.caption_size:
        return labels if net.num_classes else None
    table = net.variable('captions', 'table', jnp.zeros, (net.num_classes, net.caption_size)).value
    return jnp.asarray(table)[labels]


def embed(
    net: nn.Module,
    condition: jax.Array,
    features: int,
    init: layers.Initializer,
    name: str,
    spectral_norm: bool = False,
) -> jax.Array:
    """A vector for each image, float32 [B, features].

    One is learned for each class (Dumoulin et al. 2017, arXiv:1610.07629; Miyato & Koyama 2018,
    arXiv:1802.05637); for captions a linear map is, so that unseen captions have one too.
    """
    if condition.ndim == 1:
        known = layers.Embed(net.num_classes, features, init, spectral_norm, name=name)
    else:
        known = layers.Dense(
            features, use_bias=False, kernel_init=init, spectral_norm=spectral_norm, name=name
        )
    return known(condition)

"""Conditioning of both networks on classes or on embedded captions."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import layers


class Condition(nn.Module):
    """Condition of each image: its class, or the embedding of its caption.

    Attributes:
        num_conditions: Number of classes or captions; 0 if unconditional.
        caption_size: Size of a caption's embedding; 0 to condition on classes.
    """

    num_conditions: int
    caption_size: int

    @nn.compact
    def __call__(self, labels: jax.Array | None) -> jax.Array | None:
        """Map indices of classes or captions, int32 [B], to the condition of each image.

        Returns:
            Classes, int32 [B]; or embeddings of captions, float32 [B, caption_size], from the
            non-trainable collection 'captions'; or None if unconditional.
        """
        if not self.num_conditions:
            return None
        if not self.caption_size:
            return labels
        shape = (self.num_conditions, self.caption_size)
        table = self.variable('captions', 'table', jnp.zeros, shape).value
        return jnp.asarray(table)[labels]


class ConditionalEmbedding(nn.Module):
    """Learned embedding of the condition of each image.

    Each class has an embedding (Dumoulin et al. 2017, arXiv:1610.07629; Miyato & Koyama 2018,
    arXiv:1802.05637). Caption embeddings are mapped linearly, which generalizes to new captions.

    Attributes:
        num_conditions: Number of classes; ignored for captions.
        features: Size of the output.
        embedding_init: Initializer of `embedding`, [num_conditions or caption size, features].
        spectral_norm: Whether to apply spectral normalization to `embedding`.
    """

    num_conditions: int
    features: int
    embedding_init: layers.Initializer = nn.initializers.normal(1.0)
    spectral_norm: bool = False

    @nn.compact
    def __call__(self, condition: jax.Array) -> jax.Array:
        """Map the result of `Condition` to embeddings, float32 [B, features]."""
        is_caption = condition.ndim == 2
        rows = condition.shape[-1] if is_caption else self.num_conditions
        table = self.param('embedding', self.embedding_init, (rows, self.features))
        if self.spectral_norm:
            table = layers.spectral_normalize(self, 'embedding', table)
        return condition @ table if is_caption else jnp.take(table, condition, axis=0)

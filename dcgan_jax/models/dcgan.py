"""Generator and discriminator of DCGANs (Radford et al. 2015, arXiv:1511.06434) and variants."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import attention
from dcgan_jax.models.blocks import BLOCKS
from dcgan_jax.models.conditioning import Condition
from dcgan_jax.models.layers import Activation, ModuleDef


class Generator(nn.Module):
    """Generator: a dense stem, upsampling stages, and a convolution with tanh.

    Attributes:
        out_channels: Number of image channels (1 or 3).
        base_size: Height and width of the stem's map.
        base_features: Channels of the stem's map.
        block: Type of the stages, a key of `blocks.BLOCKS`: 'conv' (transposed convolution) or
            'residual' (Miyato et al. 2018, arXiv:1802.05957).
        features: Output channels of each stage; a further convolution outputs the image.
        kernel_sizes: Kernel sizes of each stage and of the last convolution.
        strides: 1 or 2 for each stage and for the last convolution; the image size is
            base_size * prod(strides).
        attention: Indices of the stages followed by self-attention.
        stem_features: Output features of each dense layer before the stem's map.
        stem_norm: Whether to normalize the stem's map ('conv' only; residual blocks start with a
            norm).
        dense: Dense layer; see `layers.Dense`.
        conv: Convolution of residual blocks; see `layers.Conv`.
        conv_transpose: Convolution of other stages and of the output; see `layers.ConvTranspose`.
        norm: Normalization after every convolution but the last; see `norms.Norm`.
        act: Activation.
        dtype: Data type of the computation; parameters and statistics are float32.
        num_conditions: Number of classes or captions to condition on; 0 if unconditional.
        caption_size: Size of a caption's embedding; 0 to condition on classes.
    """

    out_channels: int
    base_size: int
    base_features: int
    block: str
    features: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    strides: tuple[int, ...]
    attention: tuple[int, ...]
    stem_features: tuple[int, ...]
    stem_norm: bool
    dense: ModuleDef
    conv: ModuleDef
    conv_transpose: ModuleDef
    norm: ModuleDef
    act: Activation
    dtype: Any = jnp.float32
    num_conditions: int = 0
    caption_size: int = 0

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generate images.

        Args:
            z: Latents `[B, latent_dim]`.
            labels: Classes or captions, int32 `[B]` in [0, num_conditions); only if conditional.
            train: Whether to use the statistics of the batch and to update the running ones in the
                collection 'batch_stats'.

        Returns:
            Images in [-1, 1], float32 `[B, H, W, out_channels]`.
        """
        blocks = BLOCKS[self.block]
        norm = functools.partial(self.norm, use_running_average=not train)
        condition = Condition(self.num_conditions, self.caption_size, name='condition')(labels)
        x = z.astype(self.dtype)
        for index, features in enumerate(self.stem_features):
            x = self.act(self.dense(features, name=f'stem_{index}')(x))
        x = self.dense(self.base_size**2 * self.base_features, name='project')(x)
        x = x.reshape(-1, self.base_size, self.base_size, self.base_features)
        # Without the barrier, XLA for TPUs converts a bfloat16 map to float32 before storing it.
        x = jax.lax.optimization_barrier(x)
        if blocks is None:
            if self.stem_norm:
                x = norm(name='project_norm')(x, condition)
            x = self.act(x)

        *stages, image = zip(
            (*self.features, self.out_channels), self.kernel_sizes, self.strides, strict=True
        )
        for index, stage in enumerate(stages):
            if blocks is not None:
                block = blocks.up(*stage, self.conv, norm, self.act, name=f'block_{index}')
                x = block(x, condition)
            else:
                x = self.conv_transpose(*stage, name=f'conv_{index}')(x)
                x = self.act(norm(name=f'norm_{index}')(x, condition))
            if index in self.attention:
                x = attention.SelfAttention(self.dense, name=f'attention_{index}')(x)
        if blocks is not None:
            x = self.act(norm(name='norm_out')(x, condition))
        x = self.conv_transpose(*image, name=f'conv_{len(stages)}')(x)
        return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
    """Discriminator: downsampling stages and a dense head with one logit.

    Attributes:
        block: Type of the stages, a key of `blocks.BLOCKS`.
        features: Output channels of each stage.
        kernel_sizes: Kernel sizes of each stage.
        strides: 1 or 2 for each stage.
        attention: Indices of the stages followed by self-attention.
        dropout_rate: Dropout rate after each stage.
        minibatch_stddev: Group size of the minibatch standard deviation before the head; 0 for
            none.
        pack: Number of images concatenated along channels (PacGAN: Lin et al. 2018,
            arXiv:1712.04086).
        head: Input of the dense head: 'flatten' for the flattened last map, 'sum' for its sum over
            positions.
        predicts_rotation: Whether to add a head that predicts the rotation of an image (Chen et al.
            2019, arXiv:1811.11212).
        dense: Dense layer of the heads and of self-attention; see `layers.Dense`.
        conv: Convolution; see `layers.Conv`.
        norm: Normalization after every convolution but the first; see `norms.Norm`.
        embed: Embedding of the condition; see `conditioning.ConditionalEmbedding`.
        act: Activation.
        dtype: Data type of the computation up to the last map; heads, parameters and statistics are
            float32.
        num_conditions: Number of classes or captions of the projection discriminator (Miyato &
            Koyama 2018, arXiv:1802.05637); 0 if unconditional.
        caption_size: Size of a caption's embedding; 0 to condition on classes.
    """

    block: str
    features: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    strides: tuple[int, ...]
    attention: tuple[int, ...]
    dropout_rate: float
    minibatch_stddev: int
    pack: int
    head: str
    predicts_rotation: bool
    dense: ModuleDef
    conv: ModuleDef
    norm: ModuleDef
    embed: ModuleDef
    act: Activation
    dtype: Any = jnp.float32
    num_conditions: int = 0
    caption_size: int = 0

    @nn.compact
    def __call__(
        self, images: jax.Array, labels: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Compute logits, which are larger for real images.

        Args:
            images: Images in [-1, 1], `[B, H, W, C]`; B is divisible by `pack`.
            labels: Classes or captions, int32 `[B]` in [0, num_conditions); only if conditional.
            train: Whether to use the statistics of the batch, to update the collection
                'batch_stats', and to apply dropout with the RNG stream 'dropout'.

        Returns:
            Logits, float32 `[B / pack, 1]`. The map after each stage, `[B / pack, h, w, c]`, is
            sown in 'intermediates', and the rotation logits, float32 `[B, 4]`, in 'rotation'.
        """
        blocks = BLOCKS[self.block]
        norm = functools.partial(self.norm, use_running_average=not train)
        x = _pack(images, self.pack).astype(self.dtype)
        stages = zip(self.features, self.kernel_sizes, self.strides, strict=True)
        for index, stage in enumerate(stages):
            first = index == 0
            if blocks is not None:
                block = blocks.down(*stage, self.conv, norm, self.act, first, name=f'block_{index}')
                x = block(x)
            else:
                x = self.conv(*stage, name=f'conv_{index}')(x)
                x = self.act(x if first else norm(name=f'norm_{index}')(x))
            if index in self.attention:
                x = attention.SelfAttention(self.dense, name=f'attention_{index}')(x)
            self.sow('intermediates', f'stage_{index}', x)
            if self.dropout_rate:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        if blocks is not None:
            x = self.act(x)
        # bfloat16 has 8 significant bits and would round logits near 10 to multiples of 1/16.
        x = x.astype(jnp.float32)
        if self.minibatch_stddev:
            x = attention.minibatch_stddev(x, self.minibatch_stddev)
        x = jnp.sum(x, axis=(1, 2)) if self.head == 'sum' else x.reshape(x.shape[0], -1)
        head = functools.partial(self.dense, dtype=jnp.float32)
        logits = head(1, name='logit')(x)
        if self.predicts_rotation:
            self.sow('rotation', 'logits', head(4, name='rotation')(x))
        condition = Condition(self.num_conditions, self.caption_size, name='condition')(labels)
        if condition is not None:
            embedding = self.embed(features=x.shape[-1], name='classes')(condition)
            logits += jnp.sum(embedding * x, axis=-1, keepdims=True)
        return logits


def _pack(images: jax.Array, count: int) -> jax.Array:
    """Concatenate groups of `count` images: [B, H, W, C] to [B / count, H, W, count * C]."""
    if count == 1:
        return images
    batch, height, width, channels = images.shape
    images = images.reshape(batch // count, count, height, width, channels)
    return jnp.moveaxis(images, 1, 3).reshape(-1, height, width, count * channels)

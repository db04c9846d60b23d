"""Generator and discriminator of DCGANs (Radford et al. 2015, arXiv:1511.06434) and variants.

The modules' fields are those of `config.generator` and `config.discriminator`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import attention, blocks, conditioning, layers
from dcgan_jax.models.norms import normalize


class Generator(nn.Module):
    """Generator: a dense stem, upsampling stages, and a convolution with tanh.

    Attributes:
        out_channels: Number of image channels (1 or 3).
        base_size: Height and width of the stem's map.
        base_features: Channels of the stem's map.
        block: Type of the stages: 'conv' (transposed convolution) or 'residual' (Miyato et al.
            2018, arXiv:1802.05957).
        features: Output channels of each stage; a further convolution outputs the image.
        strides: 1 or 2 for each stage and for the last convolution; the image size is
            base_size * prod(strides).
        kernel_size: Kernel size of all convolutions.
        kernel_sizes: Kernel sizes by stage, which replace `kernel_size`; or empty.
        branches: Kernel sizes of parallel convolutions that replace each one; or empty.
        attention: Indices of the stages followed by self-attention.
        stem_features: Sizes of dense layers before the stem.
        stem_norm: Whether to normalize the stem's map ('conv' only; residual blocks start with a
            norm).
        norm: One of `norms.NORMS`, applied after every convolution but the last.
        norm_momentum: Decay rate of the running statistics.
        norm_epsilon: Constant added to the variance.
        activation: 'relu' or 'leaky_relu'.
        leaky_slope: Negative slope of 'leaky_relu'.
        use_bias: Whether dense layers and convolutions have a bias.
        weight_init: Weight initializer, a key of `blocks.INITIALIZERS`.
        weight_stddev: Standard deviation of the initializer, if it has one.
        spectral_norm: Whether to apply spectral normalization to all kernels.
        width: Factor of all numbers of features.
        num_conditions: Number of classes or captions to condition on; 0 if unconditional.
        caption_size: Size of a caption's embedding; 0 to condition on classes.
        conv_impl: Implementation of convolutions, see `conv`.
        dtype: Data type of the computation; parameters and statistics are float32.
    """

    out_channels: int
    base_size: int
    base_features: int
    block: str
    features: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_size: int
    kernel_sizes: tuple[int, ...]
    branches: tuple[int, ...]
    attention: tuple[int, ...]
    stem_features: tuple[int, ...]
    stem_norm: bool
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
        residual = self.block == 'residual'
        x = z.astype(self.dtype)
        condition = conditioning.select(self, labels)
        for index, features in enumerate(self.stem_features):
            x = self.activate(
                blocks.dense(self, blocks.scale_channels(self, features), f'stem_{index}')(x)
            )
        base_features = blocks.scale_channels(self, self.base_features)
        x = blocks.dense(self, self.base_size**2 * base_features, 'project')(x)
        x = x.reshape(-1, self.base_size, self.base_size, base_features)
        if not residual:
            if self.stem_norm:
                x = normalize(self, x, condition, train=train, name='project_norm')
            x = self.activate(x)

        for index, (features, stride) in enumerate(zip(self.features, self.strides, strict=False)):
            channels, size = blocks.scale_channels(self, features), blocks.kernel_size(self, index)
            if residual:
                x = blocks.residual_up(
                    self, x, condition, channels, size, stride, f'block_{index}', train=train
                )
            else:
                x = self._upsample(x, channels, index)
                x = normalize(self, x, condition, train=train, name=f'norm_{index}')
                x = self.activate(x)
            x = _attend(self, x, index)
        if residual:
            x = self.activate(normalize(self, x, condition, train=train, name='norm_out'))
        image = self._upsample(x, self.out_channels, len(self.features))
        return jnp.tanh(image.astype(jnp.float32))

    def activate(self, x: jax.Array) -> jax.Array:
        """Apply the activation function."""
        return nn.relu(x) if self.activation == 'relu' else nn.leaky_relu(x, self.leaky_slope)

    def _upsample(self, x: jax.Array, channels: int, index: int) -> jax.Array:
        size, stride = blocks.kernel_size(self, index), self.strides[index]
        return blocks.convolve(
            self, layers.ConvTranspose, x, channels, size, stride, f'conv_{index}'
        )


class Discriminator(nn.Module):
    """Discriminator: downsampling stages and a dense head with one logit.

    Attributes:
        block: Type of the stages: 'conv' or 'residual' (Miyato et al. 2018).
        features: Output channels of each stage.
        strides: 1 or 2 for each stage.
        kernel_size: Kernel size of all convolutions.
        kernel_sizes: Kernel sizes by stage, which replace `kernel_size`; or empty.
        branches: Kernel sizes of parallel convolutions that replace each one; or empty.
        attention: Indices of the stages followed by self-attention.
        minibatch_stddev: Group size of the minibatch standard deviation before the head; 0 for
            none.
        pack: Number of images concatenated along channels (PacGAN: Lin et al. 2018,
            arXiv:1712.04086).
        head: Input of the dense head: the last map 'flatten'ed or its 'sum' over positions.
        norm: One of `norms.NORMS`, applied after every convolution but the first.
        norm_momentum: Decay rate of the running statistics.
        norm_epsilon: Constant added to the variance.
        leaky_slope: Negative slope of LeakyReLU.
        dropout_rate: Dropout rate after each stage.
        use_bias: Whether dense layers and convolutions have a bias.
        weight_init: Weight initializer, a key of `blocks.INITIALIZERS`.
        weight_stddev: Standard deviation of the initializer, if it has one.
        spectral_norm: Whether to apply spectral normalization to all kernels and embeddings.
        width: Factor of all numbers of features.
        num_conditions: Number of classes or captions of the projection (Miyato & Koyama 2018,
            arXiv:1802.05637); 0 if unconditional.
        caption_size: Size of a caption's embedding; 0 to condition on classes.
        predicts_rotation: Whether to add a head that predicts the rotation of an image (Chen et al.
            2019, arXiv:1811.11212).
        conv_impl: Implementation of convolutions, see `conv`.
        dtype: Data type of the computation up to the last map; heads, parameters and statistics are
            float32.
    """

    block: str
    features: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_size: int
    kernel_sizes: tuple[int, ...]
    branches: tuple[int, ...]
    attention: tuple[int, ...]
    minibatch_stddev: int
    pack: int
    head: str
    norm: str
    norm_momentum: float
    norm_epsilon: float
    leaky_slope: float
    dropout_rate: float
    use_bias: bool
    weight_init: str
    weight_stddev: float
    spectral_norm: bool
    width: float
    num_conditions: int = 0
    caption_size: int = 0
    predicts_rotation: bool = False
    conv_impl: str = 'auto'
    dtype: Any = jnp.float32

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
        x = _pack(images, self.pack).astype(self.dtype)
        residual = self.block == 'residual'
        for index, (features, stride) in enumerate(zip(self.features, self.strides, strict=True)):
            channels, size = blocks.scale_channels(self, features), blocks.kernel_size(self, index)
            if residual:
                x = blocks.residual_down(
                    self, x, channels, size, stride, f'block_{index}', first=index == 0, train=train
                )
            else:
                x = blocks.convolve(self, layers.Conv, x, channels, size, stride, f'conv_{index}')
                if index > 0:
                    x = normalize(self, x, None, train=train, name=f'norm_{index}')
                x = self.activate(x)
            x = _attend(self, x, index)
            self.sow('intermediates', f'stage_{index}', x)
            if self.dropout_rate:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        if residual:
            x = self.activate(x)
        # bfloat16 has 8 significant bits: it would round logits near 10 to multiples of 1/16.
        x = x.astype(jnp.float32)
        if self.minibatch_stddev:
            x = attention.minibatch_stddev(x, self.minibatch_stddev)
        x = jnp.sum(x, axis=(1, 2)) if self.head == 'sum' else x.reshape(x.shape[0], -1)
        logits = blocks.dense(self, 1, 'logit', dtype=jnp.float32)(x)
        if self.predicts_rotation:
            self.sow('rotation', 'logits', blocks.dense(self, 4, 'turn', dtype=jnp.float32)(x))
        condition = conditioning.select(self, labels)
        if condition is not None:
            init = blocks.INITIALIZERS[self.weight_init](self.weight_stddev)
            embedding = conditioning.embed(
                self, condition, x.shape[-1], init, 'classes', self.spectral_norm
            )
            logits += jnp.sum(embedding * x, axis=-1, keepdims=True)
        return logits

    def activate(self, x: jax.Array) -> jax.Array:
        """Apply LeakyReLU; a slope of 0 is ReLU."""
        return nn.leaky_relu(x, self.leaky_slope)


def _pack(images: jax.Array, count: int) -> jax.Array:
    """Concatenate groups of `count` images: [B, H, W, C] to [B / count, H, W, count * C]."""
    if count == 1:
        return images
    batch, height, width, channels = images.shape
    images = images.reshape(batch // count, count, height, width, channels)
    return jnp.moveaxis(images, 1, 3).reshape(-1, height, width, count * channels)


def _attend(net: Generator | Discriminator, x: jax.Array, stage: int) -> jax.Array:
    """Apply self-attention if `net.attention` has the stage."""
    if stage not in net.attention:
        return x
    return attention.SelfAttention(
        blocks.INITIALIZERS[net.weight_init](net.weight_stddev),
        net.spectral_norm,
        net.dtype,
        name=f'attention_{stage}',
    )(x)

"""The generator and the discriminator: DCGANs (Radford et al. 2015, arXiv:1511.06434) and kin.

Their fields are the fields of `config.generator` and `config.discriminator`: every variant is a
config, none is a copy of a module.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dcgan_jax.models import attention, blocks, conditioning, layers
from dcgan_jax.models.norms import normalize


class Generator(nn.Module):
    """Latents to images: a dense stem, then stages that enlarge the map, then tanh.

    Attributes:
        out_channels: channels C of the images (1 or 3).
        base_size: height and width of the stem's map.
        base_features: channels of the stem's map.
        block: what a stage is: 'conv' (a transposed convolution), or 'residual' (Miyato et al.
            2018, arXiv:1802.05957).
        features: output channels of every stage; one more convolution makes the image.
        strides: 1 or 2 for each stage, and for the convolution to the image; the image side is
            base_size * prod(strides).
        kernel_size: side of every convolution's kernel.
        kernel_sizes: one for each of strides, in its place; or empty.
        branches: sides of parallel kernels that share a convolution's channels; empty: one kernel.
        attention: numbers of the stages, from 0, that self-attention follows.
        stem_features: sizes of dense layers between the latents and the stem's map.
        stem_norm: whether the stem's map is normalised ('conv' only: residual blocks begin so).
        norm: one of `norms.NORMS`, after every convolution but the last.
        norm_momentum: share of the running statistics kept at each step.
        norm_epsilon: added to the variance.
        activation: 'relu' or 'leaky_relu'.
        leaky_slope: slope of 'leaky_relu' below zero.
        use_bias: biases in dense layers and convolutions.
        weight_init: weight initialiser, a key of `blocks.INITIALIZERS`.
        weight_stddev: its standard deviation, where it has one.
        spectral_norm: of all dense layers and convolutions.
        width: scales every number of channels (and of stem features).
        num_classes: 0, or how many classes (or captions) have a normalisation of their own.
        caption_size: of a caption's vector, which takes the place of a class then; 0: classes.
        lowering: how convolutions are computed, see `conv`; the result is the same.
        dtype: of the computation; parameters and statistics stay float32.
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
    num_classes: int = 0
    caption_size: int = 0
    lowering: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Generates images.

        Args:
            z: latents `[B, latent_dim]`.
            labels: int32 `[B]` in [0, num_classes), where there are classes or captions.
            train: normalise by the batch's own statistics, and update the running ones in the
                collection 'batch_stats'; otherwise use the running ones.

        Returns:
            Float32 `[B, H, W, out_channels]` in [-1, 1]. The network computes in `dtype`, tanh in
            float32: images are augmented, compared and interpolated in float32.
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
                x = self._enlarge(x, channels, index)
                x = normalize(self, x, condition, train=train, name=f'norm_{index}')
                x = self.activate(x)
            x = _attend(self, x, index)
        if residual:
            x = self.activate(normalize(self, x, condition, train=train, name='norm_out'))
        image = self._enlarge(x, self.out_channels, len(self.features))
        return jnp.tanh(image.astype(jnp.float32))

    def activate(self, x: jax.Array) -> jax.Array:
        """The nonlinearity."""
        return nn.relu(x) if self.activation == 'relu' else nn.leaky_relu(x, self.leaky_slope)

    def _enlarge(self, x: jax.Array, channels: int, index: int) -> jax.Array:
        size, stride = blocks.kernel_size(self, index), self.strides[index]
        return blocks.convolve(
            self, layers.ConvTranspose, x, channels, size, stride, f'conv_{index}'
        )


class Discriminator(nn.Module):
    """Images to one logit each: stages that shrink the map, then one dense layer.

    Attributes:
        block: what a stage is: 'conv' or 'residual' (Miyato et al. 2018).
        features: output channels of every stage.
        strides: 1 or 2 for each stage.
        kernel_size: side of every convolution's kernel.
        kernel_sizes: one for each stage, in its place; or empty.
        branches: sides of parallel kernels that share a convolution's channels; empty: one kernel.
        attention: numbers of the stages, from 0, that self-attention follows.
        minibatch_stddev: images compared with each other by a channel before the head; 0: none.
        pack: images judged together, stacked as channels (PacGAN: Lin et al. 2018,
            arXiv:1712.04086); 1: each alone.
        head: what the dense layer sees: the last map 'flatten'ed, or its 'sum' over positions.
        norm: one of `norms.NORMS`, after every convolution but the first.
        norm_momentum: share of the running statistics kept at each step.
        norm_epsilon: added to the variance.
        leaky_slope: slope of LeakyReLU below zero.
        dropout_rate: share of activations dropped after every stage while training.
        use_bias: biases in convolutions and the dense layer.
        weight_init: weight initialiser, a key of `blocks.INITIALIZERS`.
        weight_stddev: its standard deviation, where it has one.
        spectral_norm: of all dense layers, convolutions and class vectors.
        width: scales every number of channels.
        num_classes: 0, or how many classes (or captions) the projection knows (Miyato & Koyama
            2018, arXiv:1802.05637).
        caption_size: of a caption's vector, which takes the place of a class then; 0: classes.
        predicts_rotation: a second head predicts an image's rotation (Chen et al. 2019,
            arXiv:1811.11212).
        lowering: how convolutions are computed, see `conv`; the result is the same.
        dtype: of the computation up to the last map; both heads are computed in float32, and
            parameters and statistics are float32.
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
    num_classes: int = 0
    caption_size: int = 0
    predicts_rotation: bool = False
    lowering: str = 'auto'
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, labels: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Judges images.

        Args:
            images: `[B, H, W, C]` in [-1, 1]; B is a multiple of `pack`.
            labels: int32 `[B]` in [0, num_classes), where there are classes or captions.
            train: normalise by the batch's own statistics (and update the collection
                'batch_stats'), and drop activations by the stream 'dropout'.

        Returns:
            Logits, float32 `[B / pack, 1]`; sigmoid(logit) is the probability that an image is
            real. The map after each stage, `[B / pack, h, w, c]`, is sown in 'intermediates', the
            second head's logits, float32 `[B, 4]`, in 'rotation'.
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
        # bfloat16 has 8 significant bits: near 10 it would round logits to multiples of 1/16.
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
            projected = conditioning.embed(
                self, condition, x.shape[-1], init, 'classes', self.spectral_norm
            )
            logits += jnp.sum(projected * x, axis=-1, keepdims=True)
        return logits

    def activate(self, x: jax.Array) -> jax.Array:
        """The nonlinearity: a leaky slope of 0 is ReLU."""
        return nn.leaky_relu(x, self.leaky_slope)


def _pack(images: jax.Array, count: int) -> jax.Array:
    """[B, H, W, C] to [B / count, H, W, count * C]: neighbours become channels of one image."""
    if count == 1:
        return images
    batch, height, width, channels = images.shape
    images = images.reshape(batch // count, count, height, width, channels)
    return jnp.moveaxis(images, 1, 3).reshape(-1, height, width, count * channels)


def _attend(net: Generator | Discriminator, x: jax.Array, stage: int) -> jax.Array:
    """Self-attention after one of the stages that `net.attention` names."""
    if stage not in net.attention:
        return x
    return attention.SelfAttention(
        blocks.INITIALIZERS[net.weight_init](net.weight_stddev),
        net.spectral_norm,
        net.dtype,
        name=f'attention_{stage}',
    )(x)

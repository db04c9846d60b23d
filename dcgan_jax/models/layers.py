"""Layers with weights; parameters are those of `flax.linen`.

`Conv` and `ConvTranspose` are `nn.Conv` and `nn.ConvTranspose` for square kernels and 'SAME'
padding: same parameter names, shapes and results. A checkpoint does not know which lowering ran.
`Dense` and `Embed` are theirs, and all four can be spectrally normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dcgan_jax.models import lowering as lowerings

Initializer = Callable[..., jax.Array]
Dtype = Any

_EPSILON = 1e-12  # Keeps a zero kernel's direction finite.


def spectrally_normalised(module: nn.Module, kernel: jax.Array) -> jax.Array:
    """`kernel` divided by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    The kernel `[..., features]` counts as a matrix with `features` columns. One power iteration a
    forward pass follows its value (algorithm 1); its vector `u` `[features]` is a variable of
    `module` in the collection 'spectral_stats', updated where that is mutable. No gradient flows
    through the vectors.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])

    def unit(vector: jax.Array) -> jax.Array:
        return vector / (jnp.linalg.norm(vector) + _EPSILON)

    def start() -> jax.Array:
        return unit(jax.random.normal(module.make_rng('params'), (matrix.shape[1],)))

    u = module.variable('spectral_stats', 'u', start)
    fixed = jax.lax.stop_gradient(matrix)
    left = unit(fixed @ u.value)
    right = unit(left @ fixed)
    if module.is_mutable_collection('spectral_stats') and not module.is_initializing():
        u.value = right
    return kernel / (left @ matrix @ right + _EPSILON)


class _SquareConv(nn.Module):
    """What the two layers share; a subclass says which function it applies.

    Attributes:
      features: number of output channels.
      kernel_size: side of the square kernel.
      strides: 1 or 2, in both directions.
      use_bias: whether to add a bias per output channel.
      dtype: type to compute in and to return; None means the input's type.
      param_dtype: type the parameters are kept in.
      kernel_init: initializer of `kernel`, [k, k, C_in, features].
      bias_init: initializer of `bias`, [features].
      spectral_norm: whether the kernel is spectrally normalised.
      lowering: one of `dcgan_jax.models.lowering.LOWERINGS`.
    """

    features: int
    kernel_size: int = 4
    strides: int = 2
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    spectral_norm: bool = False
    lowering: str = 'auto'

    def _convolve(self, x: jax.Array, function: Callable[..., jax.Array]) -> jax.Array:
        dtype = x.dtype if self.dtype is None else self.dtype
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
        if self.spectral_norm:
            kernel = spectrally_normalised(self, kernel)
        y = function(
            x.astype(dtype), kernel.astype(dtype), strides=self.strides, lowering=self.lowering
        )
        if not self.use_bias:
            return y
        bias = self.param('bias', self.bias_init, (self.features,), self.param_dtype)
        return y + bias.astype(dtype).reshape(1, 1, 1, -1)


class Conv(_SquareConv):
    """A convolution with 'SAME' padding: `lowering.conv` and a bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C_in] to [B, ceil(H / strides), ceil(W / strides), features]."""
        return self._convolve(x, lowerings.conv)


class ConvTranspose(_SquareConv):
    """A transposed convolution with 'SAME' padding: `lowering.conv_transpose` and a bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C_in] to [B, H * strides, W * strides, features]."""
        return self._convolve(x, lowerings.conv_transpose)


class Dense(nn.Module):
    """`nn.Dense`, spectrally normalised if wanted.

    Attributes:
      features: number of outputs.
      use_bias: whether to add a bias.
      dtype: type to compute in.
      kernel_init: initializer of `kernel`, [C_in, features].
      spectral_norm: whether the kernel is spectrally normalised.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    spectral_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C_in] to [..., features]."""
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        if self.spectral_norm:
            kernel = spectrally_normalised(self, kernel)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if not self.use_bias:
            return y
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class Embed(nn.Module):
    """A vector for each class, spectrally normalised if wanted.

    Attributes:
      num_classes: how many.
      features: size of a vector.
      embedding_init: initializer of `embedding`, [num_classes, features].
      spectral_norm: whether the table is spectrally normalised.
    """

    num_classes: int
    features: int
    embedding_init: Initializer = nn.initializers.normal(1.0)
    spectral_norm: bool = False

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        """Maps int32 [B] to float32 [B, features]."""
        table = self.param('embedding', self.embedding_init, (self.num_classes, self.features))
        if self.spectral_norm:
            table = spectrally_normalised(self, table)
        return jnp.take(table, labels, axis=0)

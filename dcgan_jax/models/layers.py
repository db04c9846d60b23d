"""Convolution layers with a choice of lowering; parameters are those of `flax.linen`.

`Conv` and `ConvTranspose` are `nn.Conv` and `nn.ConvTranspose` for square kernels and 'SAME'
padding: same parameter names, shapes and results. A checkpoint does not know which lowering ran.
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
    lowering: str = 'auto'

    def _convolve(self, x: jax.Array, function: Callable[..., jax.Array]) -> jax.Array:
        dtype = x.dtype if self.dtype is None else self.dtype
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
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

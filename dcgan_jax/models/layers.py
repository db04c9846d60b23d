"""Layers with weights; parameters are those of `flax.linen`.

`Conv` and `ConvTranspose` are `nn.Conv` and `nn.ConvTranspose` for square kernels and 'SAME'
padding: same parameter names, shapes and results. A checkpoint does not know which lowering ran.
`Dense` and `Embed` are theirs, and all four can be spectrally normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from dcgan_jax.models import conv

Initializer = Callable[..., jax.Array]
Dtype = Any

_EPSILON = 1e-12  # Keeps a zero kernel's direction finite.


def spectrally_normalised(module: nn.Module, name: str, weight: jax.Array) -> jax.Array:
    """Return `weight` divided by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    The weight `[..., features]` is treated as a matrix with `features` columns. Each forward pass
    makes one power iteration (algorithm 1) and stores the right singular vector, float32
    `[features]`, under the weight's own `name` in the collection 'spectral_stats' where that is
    mutable. No gradient flows through the vectors.
    """
    matrix = _as_matrix(weight)

    def start() -> jax.Array:
        return _unit(jax.random.normal(module.make_rng('params'), (matrix.shape[1],)))

    vector = module.variable('spectral_stats', name, start)
    left, right = _power_iteration(jax.lax.stop_gradient(matrix), vector.value)
    if module.is_mutable_collection('spectral_stats') and not module.is_initializing():
        vector.value = right
    return weight / (left @ matrix @ right + _EPSILON)


def iterated_spectral_stats(params: Any, spectral_stats: Any, iterations: int) -> Any:
    """Return 'spectral_stats' after more power iterations with `params`; no forward pass is needed.

    Args:
        params: a network's parameters.
        spectral_stats: its vectors, each at its weight's path; may belong to other parameters.
        iterations: number of power iterations.
    """
    weights = flax.traverse_util.flatten_dict(params)
    vectors = flax.traverse_util.flatten_dict(spectral_stats)
    for path in vectors:
        matrix = _as_matrix(weights[path])
        for _ in range(iterations):
            _, vectors[path] = _power_iteration(matrix, vectors[path])
    return flax.traverse_util.unflatten_dict(vectors)


def _as_matrix(weight: jax.Array) -> jax.Array:
    return weight.reshape(-1, weight.shape[-1])


def _power_iteration(matrix: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the next (left, right) unit singular vectors of `matrix` `[rows, columns]`."""
    left = _unit(matrix @ right)
    return left, _unit(left @ matrix)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / (jnp.linalg.norm(vector) + _EPSILON)


def _add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Return `y + bias` `[..., features]` in y's dtype.

    The sum is computed in at least float32: a bias's gradient sums over the batch and all
    positions, and bfloat16 loses most of such a sum.
    """
    dtype = y.dtype if jnp.finfo(y.dtype).bits >= 32 else jnp.float32
    along_features = bias.astype(dtype).reshape(*(1,) * (y.ndim - 1), -1)
    return (y.astype(dtype) + along_features).astype(y.dtype)


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
      lowering: one of `dcgan_jax.models.conv.LOWERINGS`.
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
            kernel = spectrally_normalised(self, 'kernel', kernel)
        y = function(
            x.astype(dtype), kernel.astype(dtype), strides=self.strides, lowering=self.lowering
        )
        if not self.use_bias:
            return y
        return _add_bias(y, self.param('bias', self.bias_init, (self.features,), self.param_dtype))


class Conv(_SquareConv):
    """A convolution with 'SAME' padding: `conv.conv` and a bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C_in] to [B, ceil(H / strides), ceil(W / strides), features]."""
        return self._convolve(x, conv.conv)


class ConvTranspose(_SquareConv):
    """A transposed convolution with 'SAME' padding: `conv.conv_transpose` and a bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C_in] to [B, H * strides, W * strides, features]."""
        return self._convolve(x, conv.conv_transpose)


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
            kernel = spectrally_normalised(self, 'kernel', kernel)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if not self.use_bias:
            return y
        return _add_bias(y, self.param('bias', nn.initializers.zeros, (self.features,)))


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
            table = spectrally_normalised(self, 'embedding', table)
        return jnp.take(table, labels, axis=0)

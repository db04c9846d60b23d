"""Layers with the parameters of `flax.linen` and optional spectral normalization.

`Conv` and `ConvTranspose` are `nn.Conv` and `nn.ConvTranspose` for square kernels and 'SAME'
padding, with the same parameter names, shapes and results. Checkpoints do not depend on the
implementation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from dcgan_jax.models import conv

Initializer = Callable[..., jax.Array]
Activation = Callable[[jax.Array], jax.Array]
ModuleDef = Any  # A module class with some of its fields bound by `functools.partial`.
Dtype = Any

# Initializers by config name, as functions of `weight_stddev`. Those based on fan-in or fan-out
# count all k * k taps of a kernel, but a transposed convolution of stride 2 applies only a quarter
# of them to each output pixel. For inputs of unit variance, 'he_normal' with 4x4 kernels therefore
# gives outputs of variance 0.5 away from the border, compared to 2 for a convolution of stride 1.
INITIALIZERS = {
    'normal': nn.initializers.normal,  # N(0, stddev), Radford et al. 2015, section 4.
    'orthogonal': lambda stddev: nn.initializers.orthogonal(),  # Saxe et al. 2014.
    'glorot_uniform': lambda stddev: nn.initializers.glorot_uniform(),  # Keras's default.
    'glorot_normal': lambda stddev: nn.initializers.glorot_normal(),
    'he_normal': lambda stddev: nn.initializers.he_normal(),
}
# Activations by config name, as functions of `leaky_slope`.
ACTIVATIONS: dict[str, Callable[[float], Activation]] = {
    'relu': lambda slope: nn.relu,
    'leaky_relu': lambda slope: functools.partial(nn.leaky_relu, negative_slope=slope),
}

_EPSILON = 1e-12  # Avoids division by zero.


def spectral_normalize(module: nn.Module, name: str, weight: jax.Array) -> jax.Array:
    """Divide a weight by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    Each forward pass runs one power iteration (algorithm 1) and, if the collection
    'spectral_stats' is mutable, stores the right singular vector there. No gradient flows through
    the singular vectors.

    Args:
        module: The calling module.
        name: Name of the stored vector, float32 `[features]`.
        weight: Weight `[..., features]`, treated as a matrix with `features` columns.
    """
    matrix = _as_matrix(weight)

    def init() -> jax.Array:
        return _unit(jax.random.normal(module.make_rng('params'), (matrix.shape[1],)))

    vector = module.variable('spectral_stats', name, init)
    left, right = _power_iteration(jax.lax.stop_gradient(matrix), vector.value)
    if module.is_mutable_collection('spectral_stats') and not module.is_initializing():
        vector.value = right
    return weight / (left @ matrix @ right + _EPSILON)


def update_spectral_stats(params: Any, spectral_stats: Any, iterations: int) -> Any:
    """Return 'spectral_stats' after further power iterations with `params`.

    Args:
        params: Parameters of a network.
        spectral_stats: Initial right singular vectors, by the paths of the weights. They may be
            those of other parameters.
        iterations: Number of power iterations.
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

    The sum is computed in at least float32, because the bias's gradient sums over the batch and all
    positions.
    """
    dtype = y.dtype if jnp.finfo(y.dtype).bits >= 32 else jnp.float32
    bias = bias.astype(dtype).reshape(*(1,) * (y.ndim - 1), -1)
    return (y.astype(dtype) + bias).astype(y.dtype)


class _SquareConv(nn.Module):
    """Base class of `Conv` and `ConvTranspose`.

    Attributes:
      features: Number of output channels.
      kernel_size: Size of the square kernel.
      strides: 1 or 2, in both directions.
      use_bias: Whether to add a bias.
      dtype: Data type of the computation and the result; defaults to the input's.
      param_dtype: Data type of the parameters.
      kernel_init: Initializer of `kernel`, [k, k, C_in, features].
      bias_init: Initializer of `bias`, [features].
      spectral_norm: Whether to apply spectral normalization to the kernel.
      conv_impl: One of `dcgan_jax.models.conv.IMPLEMENTATIONS`.
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
    conv_impl: str = 'auto'

    def _convolve(self, x: jax.Array, function: Callable[..., jax.Array]) -> jax.Array:
        dtype = x.dtype if self.dtype is None else self.dtype
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
        if self.spectral_norm:
            kernel = spectral_normalize(self, 'kernel', kernel)
        y = function(
            x.astype(dtype), kernel.astype(dtype), strides=self.strides, conv_impl=self.conv_impl
        )
        if not self.use_bias:
            return y
        return _add_bias(y, self.param('bias', self.bias_init, (self.features,), self.param_dtype))


class Conv(_SquareConv):
    """Convolution with 'SAME' padding and a bias; see `conv.conv`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C_in] to [B, ceil(H / strides), ceil(W / strides), features]."""
        return self._convolve(x, conv.conv)


class ConvTranspose(_SquareConv):
    """Transposed convolution with 'SAME' padding and a bias; see `conv.conv_transpose`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C_in] to [B, H * strides, W * strides, features]."""
        return self._convolve(x, conv.conv_transpose)


class Dense(nn.Module):
    """Dense layer with optional spectral normalization.

    Attributes:
      features: Number of outputs.
      use_bias: Whether to add a bias.
      dtype: Data type of the computation.
      kernel_init: Initializer of `kernel`, [C_in, features].
      spectral_norm: Whether to apply spectral normalization to the kernel.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    spectral_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., C_in] to [..., features]."""
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        if self.spectral_norm:
            kernel = spectral_normalize(self, 'kernel', kernel)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if not self.use_bias:
            return y
        return _add_bias(y, self.param('bias', nn.initializers.zeros, (self.features,)))

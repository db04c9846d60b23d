"""Symmetric int8 quantization of kernels, with a scale for each output channel.

See Jacob et al. 2018 (arXiv:1712.05877) and Krishnamoorthi 2018 (arXiv:1806.08342, section 2.3).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

_SCALE = '_scale'  # Suffix of the name of a kernel's scales.
_MAX = 127.0


def quantize(variables: Any) -> Any:
    """Quantize the kernels of a network.

    Args:
        variables: Nested dict of arrays, float32. Kernels are `[..., C_out]`.

    Returns:
        The same arrays, with 'kernel' as int8 in [-127, 127] and 'kernel_scale', float32 `[C_out]`;
        the largest absolute value of each output channel becomes 127.
    """
    quantized = {}
    for path, array in traverse_util.flatten_dict(jax.device_get(variables)).items():
        quantized[path] = array
        if path[-1] == 'kernel':
            largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
            scale = np.where(largest > 0, largest, _MAX).astype(np.float32) / np.float32(_MAX)
            quantized[path] = np.round(array / scale).astype(np.int8)
            quantized[*path[:-1], path[-1] + _SCALE] = scale
    return traverse_util.unflatten_dict(quantized)


def dequantize(quantized: Any) -> Any:
    """Return the float32 variables of a network quantized by `quantize`; can be traced."""
    arrays = traverse_util.flatten_dict(quantized)
    variables = {}
    for path, array in arrays.items():
        *module, name = path
        if name == 'kernel':
            scale = arrays[*module, name + _SCALE]
            scale = jnp.expand_dims(scale, tuple(range(array.ndim - 1)))
            variables[path] = jnp.asarray(array).astype(jnp.float32) * scale
        elif name != 'kernel' + _SCALE:
            variables[path] = array
    return traverse_util.unflatten_dict(variables)

"""'SAME' convolutions by oneDNN, the library of CPU kernels that jaxlib contains.

XLA computes convolutions of bfloat16 arrays in float32 on CPUs. oneDNN's kernels for bfloat16 use
AMX. XLA can call oneDNN's forward convolution, but does not do so by itself (as of jaxlib 0.12), so
this module calls it by its name in XLA. All gradients are forward convolutions:

- with respect to the images (`_conv_input_gradient`), one for each phase of the stride, with the
  taps of the kernel that contribute to this phase;
- with respect to the kernel (`_conv_kernel_gradient`), a 3D convolution whose third axis are the
  channels of the images and whose channels are the batch. Its kernel is the cotangent, dilated by
  the stride.

Each of the three functions is linear in both of its arguments, and its gradients are the other two,
so gradients of every order have this form. Forward-mode differentiation is not supported.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

from dcgan_jax.models import space_to_depth

# First version, and the version after the last one, with which the private interface was tested.
JAXLIB_VERSIONS = (0, 9, 2), (0, 13, 0)

_CPU_INFO = pathlib.Path('/proc/cpuinfo')

_TARGET = '__onednn$convolution'

# AMX multiplies up to 16 rows of a matrix at a time. oneDNN's rows are the pixels along the last
# axis, so narrow outputs of strided convolutions are computed in 3D, with the batch as last axis.
_NARROW = 4


def is_available() -> bool:
    """Return whether oneDNN can compute convolutions in bfloat16 here.

    This needs Linux on an x86 processor with AMX, a tested version of jaxlib, and that this CPU is
    JAX's only device, because XLA cannot partition the calls. With AVX512-BF16 instead of AMX,
    matrix products in float32 are faster.
    """
    first, last = JAXLIB_VERSIONS
    return (
        has_amx()
        and first <= jaxlib.version.__version_info__ < last
        and [device.platform for device in jax.devices()] == ['cpu']
    )


@functools.cache
def has_amx() -> bool:
    """Return whether Linux lists AMX's instructions for products of bfloat16 matrices."""
    try:
        return 'amx_bf16' in _CPU_INFO.read_text().split()
    except OSError:
        return False


def conv(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Convolve with 'SAME' padding; see `dcgan_jax.models.conv.conv`.

    Sums are computed in float32, and the result is rounded once to x's dtype.
    """
    return _conv(x, kernel, strides, False)


def conv_transpose(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Apply a transposed convolution; see `dcgan_jax.models.conv.conv_transpose`."""
    sizes = tuple(size * strides for size in x.shape[1:3])
    return _conv_input_gradient(x, kernel, strides, True, sizes)


# In the following functions, `transposed` is whether the kernel and its gradient are given as
# [k, k, C_out, C_in] and rotated by 180 degrees, as those of `conv_transpose` are.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, strides: int, transposed: bool) -> jax.Array:
    """Convolve x [B, H, W, C_in] with a kernel, see `conv`."""
    pads = _same_padding(x.shape[1:3], kernel.shape[0], strides)
    kernel, axes = (_rotate(kernel), 'HWDOI') if transposed else (kernel, 'HWDIO')
    width = -(-x.shape[2] // strides)
    if strides == 1 or width > _NARROW:
        return _forward(x, kernel, pads, axes, strides=strides)
    batch_as_depth = x.transpose(1, 2, 0, 3)[None]
    y = _forward(batch_as_depth, kernel[:, :, None], pads, axes, strides=strides)
    return y[0].transpose(2, 0, 1, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv_input_gradient(
    y: jax.Array, kernel: jax.Array, strides: int, transposed: bool, sizes: tuple[int, int]
) -> jax.Array:
    """Return the gradient of `_conv` with respect to x, [B, *sizes, C_in], for the cotangent y.

    The pixels s q + a of the images (phase a) depend on different taps for each a.
    """
    k, channels = kernel.shape[0], kernel.shape[3 if transposed else 2]
    counts = [-(-size // strides) for size in sizes]
    lows = [low for low, _ in _same_padding(sizes, k, strides)]
    phases = [
        [_find_taps(a + low, k, strides, size, count) for a in range(strides)]
        for low, size, count in zip(lows, y.shape[1:3], counts, strict=True)
    ]

    def convolve(row: _Taps, column: _Taps) -> jax.Array:
        if not row.indices or not column.indices:
            return jnp.zeros((len(y), *counts, channels), y.dtype)
        if transposed:
            i, j = (k - 1 - axis.indices[-1] for axis in (row, column))
            taps, axes = kernel[i::strides, j::strides], 'HWIO'
        else:
            i, j = (axis.indices[0] for axis in (row, column))
            taps, axes = _rotate(kernel[i::strides, j::strides]), 'HWOI'
        return _forward(y, taps, (row.pads, column.pads), axes)

    rows = [jnp.stack([convolve(row, column) for column in phases[1]], 3) for row in phases[0]]
    x = jnp.stack(rows, 2)
    x = x.reshape(len(y), *(count * strides for count in counts), channels)
    return x[:, : sizes[0], : sizes[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv_kernel_gradient(
    x: jax.Array, y: jax.Array, strides: int, transposed: bool, k: int
) -> jax.Array:
    """Return the gradient of `_conv` with respect to the kernel for the cotangent y.

    Its shape is [k, k, C_in, C_out], or [k, k, C_out, C_in] if transposed.
    """
    pads = _same_padding(x.shape[1:3], k, strides)
    channels_as_depth = x.transpose(1, 2, 3, 0)[None]
    gradient = _forward(channels_as_depth, y[:, :, :, None], pads, 'IHWDO', dilation=strides)[0]
    return jnp.swapaxes(_rotate(gradient), 2, 3) if transposed else gradient


def _conv_bwd(
    strides: int, transposed: bool, saved: tuple[jax.Array, jax.Array], y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return (
        _conv_input_gradient(y, kernel, strides, transposed, x.shape[1:3]),
        _conv_kernel_gradient(x, y, strides, transposed, kernel.shape[0]),
    )


def _conv_input_gradient_bwd(
    strides: int,
    transposed: bool,
    sizes: tuple[int, int],
    saved: tuple[jax.Array, jax.Array],
    x: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    del sizes
    y, kernel = saved
    return (
        _conv(x, kernel, strides, transposed),
        _conv_kernel_gradient(x, y, strides, transposed, kernel.shape[0]),
    )


def _conv_kernel_gradient_bwd(
    strides: int,
    transposed: bool,
    k: int,
    saved: tuple[jax.Array, jax.Array],
    kernel: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    del k
    x, y = saved
    return (
        _conv_input_gradient(y, kernel, strides, transposed, x.shape[1:3]),
        _conv(x, kernel, strides, transposed),
    )


def _save_arguments(function: Callable[..., jax.Array]) -> Callable[..., object]:
    return lambda left, right, *settings: (function(left, right, *settings), (left, right))


_conv.defvjp(_save_arguments(_conv), _conv_bwd)
_conv_input_gradient.defvjp(_save_arguments(_conv_input_gradient), _conv_input_gradient_bwd)
_conv_kernel_gradient.defvjp(_save_arguments(_conv_kernel_gradient), _conv_kernel_gradient_bwd)


class _Taps(NamedTuple):
    """Taps of the kernel that contribute to a phase of the images, along one axis.

    Attributes:
      indices: Their indices.
      pads: Zeros before and after the cotangent, which is convolved with the taps in reverse order.
    """

    indices: range
    pads: tuple[int, int]


def _find_taps(position: int, k: int, strides: int, size: int, count: int) -> _Taps:
    """Return the taps that contribute to pixel s q + a, for all q.

    Tap t contributes to it from the output q + (a + low - t) / s, where low is the padding before
    the images.

    Args:
      position: a + low.
      k: Size of the kernel.
      strides: Stride s.
      size: Number of outputs.
      count: Number of pixels in the phase.
    """
    indices = range(position % strides, k, strides)
    before = len(indices) - 1 - position // strides
    return _Taps(indices, (before, count - size + len(indices) - 1 - before))


def _rotate(kernel: jax.Array) -> jax.Array:
    return kernel[::-1, ::-1]


def _same_padding(sizes: Sequence[int], k: int, strides: int) -> list[tuple[int, int]]:
    """Return the zeros of 'SAME' padding before and after each axis, negative to omit pixels."""
    lows = [space_to_depth.padding_before(size, k, strides) for size in sizes]
    return [
        (low, (-(-size // strides) - 1) * strides + k - size - low)
        for size, low in zip(sizes, lows, strict=True)
    ]


def _forward(
    x: jax.Array,
    kernel: jax.Array,
    pads: Sequence[tuple[int, int]],
    kernel_axes: str,
    *,
    strides: int = 1,
    dilation: int = 1,
) -> jax.Array:
    """Call oneDNN's forward convolution.

    Args:
      x: [B, H, W, C_in], or [B, H, W, D, C_in].
      kernel: Array with the axes `kernel_axes`, of x's dtype; D, if present, has size 1.
      pads: Zeros before and after H and W. A negative number after an axis omits pixels.
      kernel_axes: Order of the kernel's axes. Without D, 'D' is ignored.
      strides: Stride of the window along H and W.
      dilation: Distance between the taps of the kernel along H and W.

    Returns:
      [B, H', W', C_out] or [B, H', W', D, C_out], of x's dtype, where H' is
      (H + padding - dilation * (k - 1) - 1) // strides + 1.
    """
    axes = kernel_axes if x.ndim == 5 else kernel_axes.replace('D', '')
    spatial = 'HWD'[: x.ndim - 2]
    window = [kernel.shape[axes.index(axis)] for axis in spatial]
    x = x[:, *(slice(size + min(pad[1], 0)) for size, pad in zip(x.shape[1:3], pads, strict=True))]
    depth = (1,) * (x.ndim - 4)
    settings = {
        'size': window,
        'pad_left': [*(before for before, _ in pads), *(0 for _ in depth)],
        'pad_right': [*(max(after, 0) for _, after in pads), *(0 for _ in depth)],
        'strides': [strides, strides, *depth],
        'window_dilations': [dilation, dilation, *depth],
    }
    sizes = [
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, k, before, after, s, d in zip(x.shape[1:-1], *settings.values(), strict=True)
    ]
    layout = {'batch_dim': 0, 'feature_dim': x.ndim - 1, 'spatial_dims': [*range(1, x.ndim - 1)]}
    images = {'dims': x.ndim, 'data': layout}
    filters = {
        'input_feature_dim': axes.index('I'),
        'output_feature_dim': axes.index('O'),
        'spatial_dims': [axes.index(axis) for axis in spatial],
    }
    config = {
        'dims': x.ndim,
        'input': images,
        'kernel': {'dims': x.ndim, 'filter': filters},
        'output': images,
        'window': settings,
        'feature_groups': 1,
    }
    _disable_compilation_cache()
    call = jax.ffi.ffi_call(
        _TARGET,
        jax.ShapeDtypeStruct((len(x), *sizes, kernel.shape[axes.index('O')]), x.dtype),
        vmap_method='sequential',
        custom_call_api_version=2,
        legacy_backend_config=json.dumps({'onednn_conv_config': config}),
    )
    return call(x, kernel)


def _disable_compilation_cache() -> None:
    """Disable JAX's persistent cache: XLA reads invalid memory when it saves calls of oneDNN."""
    if jax.config.jax_enable_compilation_cache:
        logging.info('the compilation cache is disabled: programs that call oneDNN are not saved')
        jax.config.update('jax_enable_compilation_cache', False)
        compilation_cache.reset_cache()

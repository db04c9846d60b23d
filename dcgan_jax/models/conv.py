"""Square 'SAME' convolutions as pure functions with several implementations.

All implementations compute the same function of the same parameters:

- 'xla': `lax.conv_general_dilated` and `lax.conv_transpose`; best on TPUs.
- 'adjoint': computes a transposed convolution as the gradient of a convolution, and its gradients
  as convolutions. XLA maps these patterns to cuDNN's backward kernels, whereas `lax.conv_transpose`
  runs as a forward convolution of an image dilated with zeros, with four times the arithmetic.
  Convolutions are the same as in 'xla'.
- 'matmul': a few matrix products in float32 (`conv_winograd`, or `conv_im2col` for few channels),
  for CPUs, where XLA has fast matrix products but slow gradients of strided and transposed
  convolutions. A transposed convolution is computed as the adjoint of a convolution.
- 'auto': 'matmul' on CPUs, 'adjoint' on NVIDIA GPUs, 'xla' elsewhere. On CPUs for which
  `conv_onednn` is available, it computes convolutions in bfloat16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from dcgan_jax.models import conv_im2col, conv_onednn, conv_winograd

IMPLEMENTATIONS = ('auto', 'matmul', 'adjoint', 'xla')

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

_IMAGE_CHANNELS = 4  # With at most this many channels, im2col is faster than Winograd.


def conv(x: jax.Array, kernel: jax.Array, *, strides: int, conv_impl: str = 'auto') -> jax.Array:
    """Convolve with 'SAME' padding, like `lax.conv_general_dilated`.

    The padding follows TensorFlow: max((ceil(H / strides) - 1) * strides + k - H, 0) zeros in
    total, of which the smaller half is placed before the image.

    Args:
      x: Images or features, [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], of x's dtype.
      strides: 1 or 2, in both directions.
      conv_impl: One of `IMPLEMENTATIONS`; affects only speed and rounding.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), C_out], of x's dtype.

    Raises:
      ValueError: If an argument is invalid.
    """
    implementations = {
        'onednn': conv_onednn.conv,
        'matmul': _conv_matmul,
        'adjoint': _conv_xla,
        'xla': _conv_xla,
    }
    return _dispatch(implementations, x, kernel, strides, conv_impl)


def conv_transpose(
    x: jax.Array, kernel: jax.Array, *, strides: int, conv_impl: str = 'auto'
) -> jax.Array:
    """Apply a transposed convolution with 'SAME' padding, like `lax.conv_transpose`.

    This is the adjoint in x of `conv` for an image of [H * strides, W * strides], with the kernel
    rotated by 180 degrees and its channels swapped. Output row p is the sum of kernel[t] * x[i]
    over all p + t = strides * i + k - 1 - max(k - strides, 0) // 2. For k = 4 and strides = 2 the
    result equals that of PyTorch's ConvTranspose2d(..., 4, stride=2, padding=1), whose kernel is
    stored rotated.

    Args:
      x: Features, [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], of x's dtype.
      strides: 1 or 2, in both directions.
      conv_impl: One of `IMPLEMENTATIONS`; affects only speed and rounding.

    Returns:
      [B, H * strides, W * strides, C_out], of x's dtype.

    Raises:
      ValueError: If an argument is invalid.
    """
    implementations = {
        'onednn': conv_onednn.conv_transpose,
        'matmul': _conv_transpose_matmul,
        'adjoint': _conv_transpose_adjoint,
        'xla': _conv_transpose_xla,
    }
    return _dispatch(implementations, x, kernel, strides, conv_impl)


def _dispatch(
    implementations: dict[str, Callable[..., jax.Array]],
    x: jax.Array,
    kernel: jax.Array,
    strides: int,
    conv_impl: str,
) -> jax.Array:
    """Validate the arguments and apply the function of the implementation."""
    if conv_impl not in IMPLEMENTATIONS:
        raise ValueError(f'conv_impl must be one of {IMPLEMENTATIONS}, got {conv_impl!r}.')
    if x.dtype != kernel.dtype:
        raise ValueError(f'The kernel must have the dtype of x, {x.dtype}, got {kernel.dtype}.')
    if strides not in (1, 2):
        raise ValueError(f'strides must be 1 or 2, got {strides!r}.')
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f'The kernel must be square, got shape {kernel.shape}.')
    functions = {
        name: lambda x, kernel, function=function: function(x, kernel, strides)
        for name, function in implementations.items()
    }
    if conv_impl == 'auto':
        # Exported programs have symbolic shapes and must not call oneDNN.
        is_static = all(isinstance(size, int) for size in x.shape)
        use_onednn = is_static and x.dtype == jnp.bfloat16 and conv_onednn.is_available()
        return lax.platform_dependent(
            x,
            kernel,
            cpu=functions['onednn' if use_onednn else 'matmul'],
            cuda=functions['adjoint'],
            default=functions['xla'],
        )
    return functions[conv_impl](x, kernel)


def _conv_xla(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), 'SAME', dimension_numbers=_DIMENSIONS
    )


def _conv_transpose_xla(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.conv_transpose(x, kernel, (strides, strides), 'SAME', dimension_numbers=_DIMENSIONS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_transpose_adjoint(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    weights = _adjoint_kernel(kernel)
    return _adjoint(lambda image: _conv_xla(image, weights, strides), x, _image(x, kernel, strides))


def _conv_transpose_adjoint_fwd(
    x: jax.Array, kernel: jax.Array, strides: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv_transpose_adjoint(x, kernel, strides), (x, kernel)


def _conv_transpose_adjoint_bwd(
    strides: int, saved: tuple[jax.Array, jax.Array], image_grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    weights = _adjoint_kernel(kernel)
    weights_grad = _adjoint(lambda w: _conv_xla(image_grad, w, strides), x, weights)
    return _conv_xla(image_grad, weights, strides), _adjoint_kernel(weights_grad)


_conv_transpose_adjoint.defvjp(_conv_transpose_adjoint_fwd, _conv_transpose_adjoint_bwd)


def _adjoint(linear: Callable[[jax.Array], jax.Array], y: jax.Array, like: jax.Array) -> jax.Array:
    """Apply to `y` the adjoint of `linear`, whose input has the shape and dtype of `like`."""
    (result,) = jax.linear_transpose(linear, like)(y)
    return result


def _adjoint_kernel(kernel: jax.Array) -> jax.Array:
    """Rotate a kernel by 180 degrees and swap its channels.

    The barrier prevents XLA from fusing the rotation with the convolution; XLA would then not
    recognize the pattern that it maps to cuDNN.
    """
    return lax.optimization_barrier(jnp.swapaxes(kernel[::-1, ::-1], 2, 3))


def _image(x: jax.Array, kernel: jax.Array, strides: int) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of the transposed convolution of x."""
    batch, height, width, _ = x.shape
    return jax.ShapeDtypeStruct(
        (batch, height * strides, width * strides, kernel.shape[3]), x.dtype
    )


def _conv_matmul(
    x: jax.Array, kernel: jax.Array, strides: int, *, transposed: bool = False
) -> jax.Array:
    taps = -(-kernel.shape[0] // strides)
    use_im2col = taps == 1 or min(kernel.shape[2:]) <= _IMAGE_CHANNELS
    form = conv_im2col if use_im2col or taps > conv_winograd.MAX_TAPS else conv_winograd
    # Sums before and after the matrix products need more precision than bfloat16.
    dtype = x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32
    y = form.conv(x.astype(dtype), kernel.astype(dtype), strides, transposed=transposed)
    return y.astype(x.dtype)


def _conv_transpose_matmul(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    # `products.einsum` does not support `jax.linear_transpose`. XLA removes the unused product.
    image = _image(x, kernel, strides)
    _, adjoint = jax.vjp(
        lambda image: _conv_matmul(image, kernel, strides, transposed=True),
        jnp.zeros(image.shape, image.dtype),
    )
    (y,) = adjoint(x)
    return y

"""Square 'SAME' convolutions as pure functions, each with several lowerings.

A lowering is one way to compute the same numbers from the same parameters:

- 'xla': `lax.conv_general_dilated` and `lax.conv_transpose`, what TPUs want.
- 'adjoint': a transposed convolution as the gradient of a convolution, with its own gradients
  written as convolutions. XLA maps these patterns to cuDNN's backward kernels; what
  `lax.conv_transpose` gives it runs as forward convolutions of zero-stuffed images, with four times
  the arithmetic. Convolutions are as in 'xla'.
- 'matmul': a few plain matrix products (`winograd`, and `patches` where one side has a few channels
  only), for CPUs, where XLA has fast products but no fast gradient of a strided or transposed
  convolution. A transposed convolution is the adjoint of a convolution, so it needs no code of its
  own.
- 'auto': 'matmul' where the program is compiled for a CPU, 'adjoint' for an NVIDIA GPU, 'xla'
  elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from dcgan_jax.models import conv_im2col, conv_winograd, products

LOWERINGS = ('auto', 'matmul', 'adjoint', 'xla')

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

_IMAGE_CHANNELS = 4  # with no more on one side, patches are cheap and Winograd's transforms dear


def conv(x: jax.Array, kernel: jax.Array, *, strides: int, lowering: str = 'auto') -> jax.Array:
    """Convolves with 'SAME' padding, like `lax.conv_general_dilated`.

    Zeros are added by TensorFlow's rule: max((ceil(H / strides) - 1) * strides + k - H, 0) in all,
    the smaller half before.

    Args:
      x: images or features, [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], of x's type.
      strides: 1 or 2, in both directions.
      lowering: one of `LOWERINGS`; changes the speed and the rounding, nothing else.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), C_out], of x's type.

    Raises:
      ValueError: if the kernel is not square or of another type than x, or strides or lowering is
        not one of the above.
    """
    by_lowering = {'matmul': _conv_matmul, 'adjoint': _conv_xla, 'xla': _conv_xla}
    return _lower(by_lowering, x, kernel, strides, lowering)


def conv_transpose(
    x: jax.Array, kernel: jax.Array, *, strides: int, lowering: str = 'auto'
) -> jax.Array:
    """Convolves the zero-stuffed x with 'SAME' padding, like `lax.conv_transpose`.

    It is the adjoint in x of `conv` of a [H * strides, W * strides] image, with the kernel rotated
    by 180 degrees and its channels swapped. Output row p is the sum of kernel[t] * x[i] over all
    p + t = strides * i + k - 1 - max(k - strides, 0) // 2. For k = 4, strides = 2 the geometry is
    that of PyTorch's ConvTranspose2d(..., 4, stride=2, padding=1), which stores the kernel rotated.

    Args:
      x: features, [B, H, W, C_in].
      kernel: [k, k, C_in, C_out], of x's type.
      strides: 1 or 2, in both directions.
      lowering: one of `LOWERINGS`; changes the speed and the rounding, nothing else.

    Returns:
      [B, H * strides, W * strides, C_out], of x's type.

    Raises:
      ValueError: if the kernel is not square or of another type than x, or strides or lowering is
        not one of the above.
    """
    by_lowering = {
        'matmul': _conv_transpose_matmul,
        'adjoint': _conv_transpose_adjoint,
        'xla': _conv_transpose_xla,
    }
    return _lower(by_lowering, x, kernel, strides, lowering)


def _lower(
    by_lowering: dict[str, Callable[..., jax.Array]],
    x: jax.Array,
    kernel: jax.Array,
    strides: int,
    lowering: str,
) -> jax.Array:
    """Checks the arguments and applies the function that `lowering` names."""
    if lowering not in LOWERINGS:
        raise ValueError(f'lowering must be one of {LOWERINGS}, got {lowering!r}.')
    if x.dtype != kernel.dtype:
        raise ValueError(f'The kernel must be of the type of x, {x.dtype}, got {kernel.dtype}.')
    if strides not in (1, 2):
        raise ValueError(f'strides must be 1 or 2, got {strides!r}.')
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f'The kernel must be square, got shape {kernel.shape}.')
    functions = {
        name: lambda x, kernel, function=function: function(x, kernel, strides)
        for name, function in by_lowering.items()
    }
    if lowering == 'auto':
        return lax.platform_dependent(
            x,
            kernel,
            cpu=functions['matmul'],
            cuda=functions['adjoint'],
            default=functions['xla'],
        )
    return functions[lowering](x, kernel)


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
    """Applies the adjoint of `linear`, a function of an array like `like`, to `y`."""
    (result,) = jax.linear_transpose(linear, like)(y)
    return result


def _adjoint_kernel(kernel: jax.Array) -> jax.Array:
    """Turns by 180 degrees and exchanges the channels: between a convolution and its adjoint.

    The barrier keeps XLA from merging the turn with the convolution, which hides the pattern.
    """
    return lax.optimization_barrier(jnp.swapaxes(kernel[::-1, ::-1], 2, 3))


def _image(x: jax.Array, kernel: jax.Array, strides: int) -> jax.ShapeDtypeStruct:
    """Shape and type of the transposed convolution of x."""
    batch, height, width, _ = x.shape
    return jax.ShapeDtypeStruct(
        (batch, height * strides, width * strides, kernel.shape[3]), x.dtype
    )


def _conv_matmul(
    x: jax.Array, kernel: jax.Array, strides: int, *, transposed: bool = False
) -> jax.Array:
    taps = -(-kernel.shape[0] // strides)
    copied_cheaply = taps == 1 or min(kernel.shape[2:]) <= _IMAGE_CHANNELS
    form = conv_im2col if copied_cheaply or taps > conv_winograd.MAX_TAPS else conv_winograd
    # The sums before and after the products need more digits than bfloat16 has. With 3 taps or more
    # Winograd's sums also need operands of more digits: rounded ones cost 2 to 5% of the result.
    dtype = x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32
    may_round = x.dtype == jnp.bfloat16 and (form is conv_im2col or taps <= 2)
    rounds = may_round and products.cpu_multiplies_bfloat16()
    y = form.conv(
        x.astype(dtype),
        kernel.astype(dtype),
        strides,
        operand_dtype=x.dtype if rounds else dtype,
        transposed=transposed,
    )
    return y.astype(x.dtype)


def _conv_transpose_matmul(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    # `products.einsum` has no `jax.linear_transpose`. XLA drops the convolution of the zeros.
    image = _image(x, kernel, strides)
    _, adjoint = jax.vjp(
        lambda image: _conv_matmul(image, kernel, strides, transposed=True),
        jnp.zeros(image.shape, image.dtype),
    )
    (y,) = adjoint(x)
    return y

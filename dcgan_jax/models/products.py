"""Matrix products on CPUs with operands rounded to bfloat16."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp

_CPU_INFO = pathlib.Path('/proc/cpuinfo')


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
    """Return whether the CPU has instructions for products of bfloat16 matrices.

    These are AMX and AVX512-BF16, as listed by Linux. Without them, bfloat16 products are slower
    than float32 products in XLA.
    """
    return has_cpu_flag('amx_bf16') or has_cpu_flag('avx512_bf16')


def has_cpu_flag(flag: str) -> bool:
    """Return whether Linux lists a flag of the CPU; False on other systems."""
    try:
        return flag in _CPU_INFO.read_text().split()
    except OSError:
        return False


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def einsum(
    subscripts: str, operand_dtype: jax.typing.DTypeLike, left: jax.Array, right: jax.Array
) -> jax.Array:
    """Compute `jnp.einsum` of two matrices after rounding them to `operand_dtype`.

    Sums and the result have the dtype of the arrays. Gradients of every order are products of the
    same form, with rounded operands. JAX's default gradient would transpose the cotangent and
    multiply it without rounding; in XLA on CPUs, the transposition takes longer than the product.
    Forward-mode differentiation is not supported.

    Args:
        subscripts: Subscripts, e.g. 'mk,kn->mn'. Each index occurs in two of the three terms.
        operand_dtype: Data type of the product's operands, e.g. bfloat16.
        left: First operand, with a dtype of at least 32 bits.
        right: Second operand, of the same dtype.
    """
    sum_dtype = left.dtype
    left, right = left.astype(operand_dtype), right.astype(operand_dtype)
    operands, result = subscripts.split('->')
    left_term, right_term = operands.split(',')
    # Exported programs have symbolic shapes; the speed of their gradients does not matter.
    is_static = all(isinstance(size, int) for size in (*left.shape, *right.shape))
    if is_static and left.dtype != sum_dtype and left_term[0] == right_term[0]:
        if result[0] == right_term[1]:
            left, right = right, left
        return _sum_over_rows(left, right, sum_dtype)
    return jnp.einsum(subscripts, left, right, preferred_element_type=sum_dtype)


def _sum_over_rows(left: jax.Array, right: jax.Array, sum_dtype: jax.typing.DTypeLike) -> jax.Array:
    """Compute left.T @ right with an explicit transposition.

    Otherwise, XLA on CPUs would convert the operands to float32, which is several times slower.
    Either `left` is transposed, or `right` and the result, whichever moves fewer elements.
    """
    dot = functools.partial(jnp.dot, preferred_element_type=sum_dtype)
    if left.size <= right.size + left.shape[1] * right.shape[1]:
        return dot(_transpose(left), right)
    return _transpose(dot(_transpose(right), left))


def _transpose(x: jax.Array) -> jax.Array:
    """Transpose a matrix in a form that XLA does not merge with a product."""
    rows, columns = x.shape
    factor = math.gcd(rows, 2)
    return x.reshape(rows // factor, factor, columns).transpose(2, 0, 1).reshape(columns, rows)


def _forward(
    subscripts: str, operand_dtype: jax.typing.DTypeLike, left: jax.Array, right: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return einsum(subscripts, operand_dtype, left, right), (left, right)


def _backward(
    subscripts: str,
    operand_dtype: jax.typing.DTypeLike,
    saved: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    left, right = saved
    operands, result = subscripts.split('->')
    left_term, right_term = operands.split(',')
    return (
        einsum(f'{result},{right_term}->{left_term}', operand_dtype, cotangent, right),
        einsum(f'{left_term},{result}->{right_term}', operand_dtype, left, cotangent),
    )


einsum.defvjp(_forward, _backward)

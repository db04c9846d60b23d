"""Matrix products on CPUs with operands rounded to bfloat16."""

import functools
import pathlib

import jax
import jax.numpy as jnp

_CPU_INFO = pathlib.Path('/proc/cpuinfo')


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
    """Return whether the CPU has instructions for products of bfloat16 matrices.

    These are AMX and AVX512-BF16, as listed by Linux. Without them, XLA computes such products more
    slowly than those of float32.
    """
    try:
        cpu = _CPU_INFO.read_text()
    except OSError:  # Not Linux.
        return False
    return not {'amx_bf16', 'avx512_bf16'}.isdisjoint(cpu.split())


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def einsum(
    subscripts: str, operand_dtype: jax.typing.DTypeLike, left: jax.Array, right: jax.Array
) -> jax.Array:
    """Compute `jnp.einsum` of two arrays after rounding them to `operand_dtype`.

    Sums and the result keep the dtype of the arrays. Gradients of every order are also such
    products. JAX's own gradient would multiply the unrounded cotangent and transpose it first,
    which takes longer than the product in XLA on CPUs. Forward-mode differentiation is not
    supported.

    Args:
        subscripts: Subscripts, e.g. 'mk,kn->mn'. Each index occurs in two or all of the terms.
        operand_dtype: Data type of the product's operands, e.g. bfloat16.
        left: First operand, with a dtype of at least 32 bits.
        right: Second operand, of the same dtype.
    """
    return jnp.einsum(
        subscripts,
        left.astype(operand_dtype),
        right.astype(operand_dtype),
        preferred_element_type=left.dtype,
    )


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

"""Matrix products of convolutions on CPUs, some with operands rounded to bfloat16."""

import functools
import pathlib

import jax
import jax.numpy as jnp

_CPU_INFO = pathlib.Path('/proc/cpuinfo')


@functools.cache
def cpu_multiplies_bfloat16() -> bool:
    """Return whether this machine's CPU has instructions for products of bfloat16 matrices.

    True for AMX and AVX512-BF16, as Linux lists them. Without them XLA computes such products more
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
    """Compute `jnp.einsum` of two arrays, which are rounded to `operand_dtype` first.

    Sums and the result keep the type of the arrays. Gradients of every order are such products
    too; JAX's own would multiply the unrounded cotangent, and transpose it first, which in XLA on
    CPUs takes longer than the product. Forward-mode differentiation is not supported.

    Args:
        subscripts: For example 'mk,kn->mn'. Each index occurs in two of the three terms, or in all.
        operand_dtype: The type that the product's operands have, for example bfloat16.
        left: The first operand, of 32 bits or more.
        right: The second operand, of the same type.
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
    of_left, of_right = operands.split(',')
    return (
        einsum(f'{result},{of_right}->{of_left}', operand_dtype, cotangent, right),
        einsum(f'{of_left},{result}->{of_right}', operand_dtype, left, cotangent),
    )


einsum.defvjp(_forward, _backward)

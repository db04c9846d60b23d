"""Matrix products with bfloat16 operands and float32 results, for CPUs that have units for them."""

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def bfloat16_einsum(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """Compute `jnp.einsum` of two float32 arrays, which are rounded to bfloat16 first.

    The result is float32, and so are its sums. Gradients of every order are such products too: the
    transpose rule of JAX would multiply a float32 cotangent by a bfloat16 operand, which XLA
    computes in float32. Forward-mode differentiation is not supported.

    Args:
        subscripts: E.g. 'mk,kn->mn'. Each index occurs in two of the three terms, or in all.
        left: The first operand, float32.
        right: The second operand, float32.
    """
    return jnp.einsum(
        subscripts,
        left.astype(jnp.bfloat16),
        right.astype(jnp.bfloat16),
        preferred_element_type=jnp.float32,
    )


def _forward(
    subscripts: str, left: jax.Array, right: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return bfloat16_einsum(subscripts, left, right), (left, right)


def _backward(
    subscripts: str, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    left, right = saved
    operands, result = subscripts.split('->')
    of_left, of_right = operands.split(',')
    return (
        bfloat16_einsum(f'{result},{of_right}->{of_left}', cotangent, right),
        bfloat16_einsum(f'{of_left},{result}->{of_right}', left, cotangent),
    )


bfloat16_einsum.defvjp(_forward, _backward)

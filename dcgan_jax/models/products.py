"""Matrix products whose gradients are products of the same form."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def einsum(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """Compute `jnp.einsum` of two matrices, with explicit gradients.

    JAX's default gradient would transpose the result of a product. XLA on CPUs fuses this
    transposition with the following operations, which takes longer than the product.
    Forward-mode differentiation is not supported.

    Args:
        subscripts: Subscripts, e.g. 'mk,kn->mn'. Each index occurs in two of the three terms.
        left: First operand.
        right: Second operand, of the same dtype.
    """
    return jnp.einsum(subscripts, left, right)


def _forward(
    subscripts: str, left: jax.Array, right: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return einsum(subscripts, left, right), (left, right)


def _backward(
    subscripts: str, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    left, right = saved
    operands, result = subscripts.split('->')
    left_term, right_term = operands.split(',')
    return (
        einsum(f'{result},{right_term}->{left_term}', cotangent, right),
        einsum(f'{left_term},{result}->{right_term}', left, cotangent),
    )


einsum.defvjp(_forward, _backward)

"""Rates of single matrix products on CPUs with bfloat16 operands and float32 results.

    python -m benchmarks.products --shape=8192,2048,256

Prints one JSON line for each implementation of A @ B, where A is [rows, inner], and of A.T @ B,
where A is [inner, rows]: 'jnp' is `jnp.einsum`, 'ours' is `dcgan_jax.models.products.einsum`.
"""

import argparse
import functools

import jax
import jax.numpy as jnp

from benchmarks import measure
from dcgan_jax.models import products


def main() -> None:
    """Time the products and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--shape', default='8192,2048,256', help='rows, inner, columns')
    parser.add_argument('--repeats', type=int, default=20)
    flags = parser.parse_args()
    rows, inner, columns = map(int, flags.shape.split(','))
    right = jax.random.normal(jax.random.key(1), (inner, columns))
    for subscripts, shape in (('mk,kn->mn', (rows, inner)), ('km,kn->mn', (inner, rows))):
        left = jax.random.normal(jax.random.key(0), shape)
        for dtype in (jnp.float32, jnp.bfloat16):
            operands = left.astype(dtype), right.astype(dtype)
            functions = {
                'jnp': functools.partial(
                    jnp.einsum, subscripts, preferred_element_type=jnp.float32
                ),
                # Rounding to bfloat16 is part of the product, so the operands are float32.
                'ours': functools.partial(products.einsum, subscripts, dtype),
            }
            for name, function in functions.items():
                arguments = operands if name == 'jnp' else (left, right)
                run = jax.jit(function).lower(*arguments).compile()
                times = measure.seconds(lambda: run(*arguments), flags.repeats)  # noqa: B023
                measure.report(
                    'products',
                    subscripts=subscripts,
                    shape=[rows, inner, columns],
                    operand_dtype=jnp.dtype(dtype).name,
                    implementation=name,
                    seconds=measure.summary(times),
                    flop_per_s=round(2 * rows * inner * columns / min(times)),
                )


if __name__ == '__main__':
    main()

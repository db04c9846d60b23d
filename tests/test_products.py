"""Matrix products and their gradients compared to NumPy in float64."""

import functools

import jax
import numpy as np
import pytest

from dcgan_jax.models import products


@pytest.mark.parametrize('subscripts', ['tc,co->to', 'tc,oc->to'])
def test_products_and_gradients_equal_those_of_numpy(subscripts):
    rng = np.random.default_rng(0)
    arrays = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((30, 64), (64, 7) if 'co->' in subscripts else (7, 64), (30, 7))
    )
    left, right, cotangent = arrays
    y, vjp = jax.vjp(functools.partial(products.einsum, subscripts), left, right)
    left_grad, right_grad = vjp(cotangent)
    operands, result = subscripts.split('->')
    of_left, of_right = operands.split(',')
    for actual, terms, *factors in (
        (y, subscripts, left, right),
        (left_grad, f'{result},{of_right}->{of_left}', cotangent, right),
        (right_grad, f'{of_left},{result}->{of_right}', left, cotangent),
    ):
        expected = np.einsum(terms, *(factor.astype(np.float64) for factor in factors))
        assert np.linalg.norm(actual - expected) < 1e-6 * np.linalg.norm(expected)


def test_gradients_transpose_no_result_of_a_product():
    def gradients(left, right, cotangent):
        return jax.vjp(functools.partial(products.einsum, 'tc,co->to'), left, right)[1](cotangent)

    shapes = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((30, 64), (64, 7), (30, 7)))
    text = jax.jit(gradients).lower(*shapes).as_text()
    assert text.count('stablehlo.dot_general') == 2
    assert 'stablehlo.transpose' not in text

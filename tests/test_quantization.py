"""Quantization of kernels to int8."""

import numpy as np
import pytest

from dcgan_jax import quantization


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 5, 3)).astype(np.float32)
    kernel[..., 1] *= 100.0
    kernel[..., 2] = 0.0
    return {
        'params': {
            'conv_0': {'kernel': kernel, 'bias': rng.normal(size=3).astype(np.float32)},
            'norm_0': {'scale': rng.normal(size=3).astype(np.float32)},
        },
        'batch_stats': {'norm_0': {'mean': rng.normal(size=3).astype(np.float32)}},
    }


def test_only_kernels_are_quantized(variables):
    quantized = quantization.quantize(variables)
    assert quantized['params']['conv_0']['kernel'].dtype == np.int8
    assert quantized['params']['conv_0']['kernel_scale'].shape == (3,)
    for collection, module, name in (
        ('params', 'conv_0', 'bias'), ('params', 'norm_0', 'scale'),
        ('batch_stats', 'norm_0', 'mean'),
    ):  # fmt: skip
        np.testing.assert_array_equal(
            quantized[collection][module][name], variables[collection][module][name]
        )


def test_error_is_at_most_half_a_quantization_step_of_each_output_channel(variables):
    kernel = variables['params']['conv_0']['kernel']
    restored = quantization.dequantize(quantization.quantize(variables))
    error = np.abs(np.float64(restored['params']['conv_0']['kernel']) - kernel).max(axis=(0, 1, 2))
    step = np.abs(np.float64(kernel)).max(axis=(0, 1, 2)) / 127
    assert (error <= 0.5001 * step).all()
    assert error[2] == 0.0
    assert restored['params'].keys() == variables['params'].keys()
    assert restored['params']['conv_0'].keys() == variables['params']['conv_0'].keys()


def test_quantized_integers_are_restored_exactly():
    kernel = np.float32(np.random.default_rng(0).integers(-127, 128, (7, 6)))
    kernel[0] = 127.0
    restored = quantization.dequantize(quantization.quantize({'kernel': kernel}))
    np.testing.assert_array_equal(restored['kernel'], kernel)

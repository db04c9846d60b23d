"""Duration of single convolutions, forward and backward, for all implementations and PyTorch.

    python -m benchmarks.layers --layers=conv:16x128:256:k4s2,conv_transpose:8x256:128:k5s1

A layer is KIND:HEIGHTxC_IN:C_OUT:kKsS. Prints one JSON line for each implementation, with arrays
of `--dtype`. With `--errors`, prints the relative errors (L2) in bfloat16 with respect to float64:

    python -m benchmarks.layers --errors --batch_size=4 --layers=conv:8x256:64:k4s2
"""

import argparse
import functools
import os
import re
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from dcgan_jax.models import conv

try:
    import torch
except ImportError:
    torch = None

LAYERS = (
    'conv:32x3:128:k4s2,conv:16x128:256:k4s2,conv:8x256:512:k4s2,conv_transpose:8x256:128:k4s2,'
    'conv:16x64:128:k5s2,conv_transpose:8x256:128:k5s1,conv_transpose:8x128:64:k5s2,'
    'conv:16x256:256:k3s1,conv:32x128:128:k3s1'
)
_IMPLEMENTATIONS = 'auto', 'matmul', 'xla'
_PATTERN = re.compile(r'(conv|conv_transpose):(\d+)x(\d+):(\d+):k(\d+)s([12])')

Run = Callable[[], object]


def create_jax(
    kind: str, conv_impl: str, x: np.ndarray, kernel: np.ndarray, strides: int, dtype: str
) -> Run:
    """Return a compiled function that computes the output y and the gradients of |y|^2 / 2."""
    function = functools.partial(getattr(conv, kind), strides=strides, conv_impl=conv_impl)

    @jax.jit
    def run(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        y, vjp = jax.vjp(function, x, kernel)
        return y, *vjp(y)

    arrays = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    return lambda: jax.block_until_ready(run(*arrays))


def errors(layer: str, batch_size: int) -> None:
    """Print the relative errors (L2) of a layer in bfloat16 with respect to float64.

    The errors are those of the output, of the gradients with respect to images and kernel for a
    random cotangent, and of the gradient with respect to the kernel of the squared gradient with
    respect to the images.
    """
    kind, x, kernel, strides = _random_inputs(layer, batch_size)

    def gradients(conv_impl: str, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        function = functools.partial(getattr(conv, kind), strides=strides, conv_impl=conv_impl)
        y, vjp = jax.vjp(function, x, kernel)
        cotangent = np.random.default_rng(2).standard_normal(y.shape, np.float32)
        cotangent = jnp.asarray(cotangent).astype(jnp.bfloat16).astype(y.dtype)

        def squared(kernel: jax.Array) -> jax.Array:
            x_grad, _ = jax.vjp(function, x, kernel)[1](cotangent)
            return jnp.sum(x_grad**2)

        return y, *vjp(cotangent), jax.grad(squared)(kernel)

    rounded = [jnp.asarray(array).astype(jnp.bfloat16) for array in (x, kernel)]
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(array, np.float64)) for array in rounded]
        expected = [
            np.asarray(array) for array in jax.jit(gradients, static_argnums=0)('xla', *wide)
        ]
    for name in _IMPLEMENTATIONS:
        actual = jax.jit(gradients, static_argnums=0)(name, *rounded)
        relative = [
            float(np.linalg.norm(np.asarray(a, np.float64) - e) / np.linalg.norm(e))
            for a, e in zip(actual, expected, strict=True)
        ]
        names = 'output', 'gradient_of_images', 'gradient_of_kernel', 'second_order'
        measure.report(
            'layer_errors',
            layer=layer,
            batch_size=batch_size,
            implementation=name,
            errors=dict(zip(names, relative, strict=True)),
        )


def create_pytorch(kind: str, x: np.ndarray, kernel: np.ndarray, strides: int, dtype: str) -> Run:
    """Return a function with the same outputs as that of `create_jax`, in eager PyTorch."""
    k = kernel.shape[0]
    padding = (k - 1) // 2
    options = {'dtype': getattr(torch, dtype), 'requires_grad': True}
    images = torch.tensor(x.transpose(0, 3, 1, 2).copy(), **options)
    if kind == 'conv':
        weights = torch.tensor(kernel.transpose(3, 2, 0, 1).copy(), **options)
        function = functools.partial(torch.nn.functional.conv2d, stride=strides, padding=padding)
    else:
        weights = torch.tensor(kernel.transpose(2, 3, 0, 1).copy(), **options)
        extra = {'output_padding': strides - 1} if k % 2 else {}
        function = functools.partial(
            torch.nn.functional.conv_transpose2d, stride=strides, padding=padding, **extra
        )

    def run() -> object:
        y = function(images, weights)
        return y, *torch.autograd.grad(y, (images, weights), y.detach())

    return run


def _random_inputs(layer: str, batch_size: int) -> tuple[str, np.ndarray, np.ndarray, int]:
    """Return the type of a layer, random images `[N, H, W, C_in]`, a kernel, and the stride.

    Raises:
        ValueError: If the layer is not of the form KIND:HEIGHTxC_IN:C_OUT:kKsS.
    """
    match = _PATTERN.fullmatch(layer)
    if not match:
        raise ValueError(f'A layer must be like conv:16x128:256:k4s2, got {layer!r}.')
    size, inputs, outputs, k, strides = map(int, match.groups()[1:])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch_size, size, size, inputs), np.float32)
    kernel = rng.standard_normal((k, k, inputs, outputs), np.float32)
    return match[1], x, kernel, strides


def time_layer(layer: str, batch_size: int, repeats: int, dtype: str) -> None:
    """Time all implementations of a layer, interleaved; print one JSON line each."""
    kind, x, kernel, strides = _random_inputs(layer, batch_size)
    k, size, (inputs, outputs) = len(kernel), x.shape[1], kernel.shape[2:]
    runs = {name: create_jax(kind, name, x, kernel, strides, dtype) for name in _IMPLEMENTATIONS}
    if torch and (k % 2 or strides == 2):  # PyTorch's padding is symmetric.
        torch.set_num_threads(os.cpu_count())
        runs['pytorch_eager'] = create_pytorch(kind, x, kernel, strides, dtype)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for name in list(runs) * repeats:
        start = time.perf_counter()
        runs[name]()
        times[name].append(time.perf_counter() - start)
    pixels = size**2 if kind == 'conv_transpose' else (size // strides) ** 2
    gflop = 3 * 2 * batch_size * pixels * k**2 * inputs * outputs / 1e9
    for name, seconds in times.items():
        measure.report(
            'layers',
            layer=layer,
            batch_size=batch_size,
            dtype=dtype,
            implementation=name,
            seconds=measure.summary(seconds),
            ratio_to_matmul=measure.ratio(seconds, times['matmul']),
            gflop=round(gflop, 2),
        )


def main() -> None:
    """Time each layer, or print its errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--layers', default=LAYERS)
    parser.add_argument('--batch_size', type=int, default=128)
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    parser.add_argument(
        '--errors', action='store_true', help='print errors in bfloat16 instead of times'
    )
    flags = parser.parse_args()
    for layer in flags.layers.split(','):
        if flags.errors:
            errors(layer, flags.batch_size)
        else:
            time_layer(layer, flags.batch_size, flags.repeats, flags.dtype)


if __name__ == '__main__':
    main()

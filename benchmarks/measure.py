"""What all benchmarks share: timing, the description of the machine, one JSON line a result."""

import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

_TUNABLES = 'GLIBC_TUNABLES', 'XLA_FLAGS'  # variables that change the speed
_FLAGS = 'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'amx_int8'  # of the processor


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Times `run`, whose result is waited for, `repeats` times after once unclocked."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Median, and the range that holds the middle half."""
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return {
        'median_s': round(statistics.median(ordered), 6),
        'middle_half_s': [round(ordered[quarter], 6), round(ordered[-1 - quarter], 6)],
        'repeats': len(ordered),
    }


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Median over the turns of (theirs / ours)."""
    return round(statistics.median(a / b for a, b in zip(theirs, ours, strict=True)), 3)


def matmul_rate(dtype: jnp.dtype, repeats: int = 5, precision: str | None = None) -> float:
    """FLOP/s of a large square matrix product in `dtype` in this process: the best of a few.

    Args:
        dtype: of the operands.
        repeats: timed runs.
        precision: of JAX; None is its default, which on GPUs is TF32 for float32 operands.
    """
    on_cpu = jax.default_backend() == 'cpu'
    size, products = (2048, 1) if on_cpu else (8192, 10)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(functools.partial(jnp.dot, precision=precision))
    times = seconds(lambda: [product(a, a) for _ in range(products)], repeats)
    return 2 * size**3 * products / min(times)


def copy_rate(repeats: int = 5) -> float:
    """Bytes/s read and written by an element-wise operation on a large array: the best of a few."""
    count, passes = (2**26, 1) if jax.default_backend() == 'cpu' else (2**29, 10)
    x = jnp.ones((count,), jnp.float32)
    scale = jax.jit(lambda x: x * 1.5)
    times = seconds(lambda: [scale(x) for _ in range(passes)][-1], repeats)
    return 2 * x.nbytes * passes / min(times)


def report(benchmark: str, **fields: object) -> None:
    """Prints the line of a result."""
    print(line(benchmark, **fields), flush=True)


def line(benchmark: str, **fields: object) -> str:
    """One JSON line: the result, on what, with which versions, when."""
    versions = {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    result = {
        'benchmark': benchmark,
        **fields,
        'device': device(),
        'python': platform.python_version(),
        'environment': {name: os.environ[name] for name in _TUNABLES if name in os.environ},
    }
    result |= {'versions': versions, 'date': datetime.date.today().isoformat()}
    return json.dumps(result)


def device() -> str:
    """The accelerator's name and how many, or the processor's, its cores and vector units."""
    devices = jax.devices()
    if devices[0].platform != 'cpu':
        return f'{len(devices)} x {devices[0].device_kind}'
    info = _processor()
    flags = ' '.join(flag for flag in _FLAGS if flag in info.get('flags', '').split())
    name = info.get('model name', platform.processor())
    return f'CPU {name}, {os.cpu_count()} cores, {flags}'


def _processor() -> dict[str, str]:
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(':', 1) for line in lines if ':' in line)
    return {key.strip(): value.strip() for key, value in pairs}

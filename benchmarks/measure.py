"""Timing, description of the machine, and JSON output for the benchmarks."""

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

_VARIABLES = 'GLIBC_TUNABLES', 'XLA_FLAGS'  # Environment variables that affect the speed.
_CPU_FLAGS = 'avx2', 'avx512f', 'avx512_bf16', 'amx_bf16', 'amx_int8'


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Return the durations of calls of `run`, each until its result is ready, after a warm-up."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Return the median and the interquartile range."""
    ordered = sorted(times)
    quarter = len(ordered) // 4
    return {
        'median_s': round(statistics.median(ordered), 6),
        'middle_half_s': [round(ordered[quarter], 6), round(ordered[-1 - quarter], 6)],
        'repeats': len(ordered),
    }


def ratio(times: list[float], baseline: list[float]) -> float:
    """Return the median over rounds of times / baseline."""
    return round(statistics.median(a / b for a, b in zip(times, baseline, strict=True)), 3)


def matmul_rate(dtype: jnp.dtype, repeats: int = 5, precision: str | None = None) -> float:
    """Return the best measured rate of a large square matrix product in FLOP/s.

    Args:
        dtype: Data type of the operands.
        repeats: Number of timed runs.
        precision: `precision` of `jnp.dot`; on GPUs, the default for float32 is TF32.
    """
    on_cpu = jax.default_backend() == 'cpu'
    size, products = (2048, 1) if on_cpu else (8192, 10)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(functools.partial(jnp.dot, precision=precision))
    times = seconds(lambda: [product(a, a) for _ in range(products)], repeats)
    return 2 * size**3 * products / min(times)


def copy_rate(repeats: int = 5) -> float:
    """Return the best measured rate of an element-wise operation in bytes/s (reads and writes)."""
    count, passes = (2**26, 1) if jax.default_backend() == 'cpu' else (2**29, 10)
    x = jnp.ones((count,), jnp.float32)
    scale = jax.jit(lambda x: x * 1.5)
    times = seconds(lambda: [scale(x) for _ in range(passes)][-1], repeats)
    return 2 * x.nbytes * passes / min(times)


def report(benchmark: str, **fields: object) -> None:
    """Print a result as a JSON line."""
    print(line(benchmark, **fields), flush=True)


def line(benchmark: str, **fields: object) -> str:
    """Return a result as a JSON line with the device, versions and date."""
    versions = {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    result = {
        'benchmark': benchmark,
        **fields,
        'device': device(),
        'python': platform.python_version(),
        'environment': {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    result |= {'versions': versions, 'date': datetime.date.today().isoformat()}
    return json.dumps(result)


def device() -> str:
    """Return the name and number of accelerators, or the CPU's name, cores and SIMD extensions."""
    devices = jax.devices()
    if devices[0].platform != 'cpu':
        return f'{len(devices)} x {devices[0].device_kind}'
    info = _processor()
    flags = ' '.join(flag for flag in _CPU_FLAGS if flag in info.get('flags', '').split())
    name = info.get('model name', platform.processor())
    return f'CPU {name}, {os.cpu_count()} cores, {flags}'


def _processor() -> dict[str, str]:
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(':', 1) for line in lines if ':' in line)
    return {key.strip(): value.strip() for key, value in pairs}

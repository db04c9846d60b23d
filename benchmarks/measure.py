"""What all benchmarks share: timing, the description of the machine, one JSON line a result."""

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

_TUNABLES = 'GLIBC_TUNABLES', 'XLA_FLAGS'  # variables that change the speed


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


def matmul_rate(dtype: jnp.dtype, repeats: int = 5) -> float:
    """FLOP/s of a large square matrix product in `dtype` in this process: the best of a few."""
    size = 2048 if jax.default_backend() == 'cpu' else 8192
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    return 2 * size**3 / min(seconds(lambda: jax.jit(jnp.dot)(a, a), repeats))


def report(benchmark: str, **fields: object) -> None:
    """Prints one JSON line: the result, on what, with which versions, when."""
    versions = {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    line = {
        'benchmark': benchmark,
        **fields,
        'device': device(),
        'python': platform.python_version(),
        'environment': {name: os.environ[name] for name in _TUNABLES if name in os.environ},
    }
    line |= {'versions': versions, 'date': datetime.date.today().isoformat()}
    print(json.dumps(line), flush=True)


def device() -> str:
    """The accelerator's name and how many, or the processor's and its cores."""
    devices = jax.devices()
    if devices[0].platform != 'cpu':
        return f'{len(devices)} x {devices[0].device_kind}'
    return f'CPU {_processor()}, {os.cpu_count()} cores'


def _processor() -> str:
    try:
        with open('/proc/cpuinfo') as file:
            return next(line.split(': ')[1].strip() for line in file if 'model name' in line)
    except (OSError, StopIteration):
        return platform.processor()

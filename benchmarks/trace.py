"""Profile a config's training step, and list the operations that take the most time.

    python -m benchmarks.trace --config=cifar10 --set=dtype=bfloat16 --out=DIR

Writes the trace, which TensorBoard's profile plugin can also show, and the compiled program. Prints
a JSON line with the fraction of time in which the device was busy, and the longest operations.
"""

import argparse
import collections
import gzip
from pathlib import Path

import jax
from jax.profiler import ProfileData

from benchmarks import measure, program

_CALLS = 5


def operations(path: Path) -> tuple[collections.Counter, float, float]:
    """Sum the durations of a trace's device operations.

    Returns:
        Nanoseconds of each operation, nanoseconds during which any operation ran, and nanoseconds
        from the start of the first to the end of the last operation.
    """
    total, spans = collections.Counter(), []
    for plane in ProfileData.from_file(str(path)).planes:
        if not plane.name.startswith('/device:'):
            continue
        for line in plane.lines:
            if not line.name.startswith('Stream'):
                continue
            for event in line.events:
                total[event.name] += event.duration_ns
                spans.append((event.start_ns, event.start_ns + event.duration_ns))
    busy, end = 0.0, 0.0
    for start, stop in sorted(spans):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    duration = end - min(start for start, _ in spans) if spans else 0.0
    return total, busy, duration


def main() -> None:
    """Trace `_CALLS` jitted training calls of one config and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--steps_per_call', type=int, default=10)
    parser.add_argument('--out', required=True, help='folder for the trace and the program')
    flags = parser.parse_args()
    out = Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)

    config = program.load_config(flags.config, flags.set)
    compiled = program.build(config, flags.steps_per_call)
    update = compiled.updates()
    jax.block_until_ready(update())
    with jax.profiler.trace(out):
        for _ in range(_CALLS):
            step = update()
        jax.block_until_ready(step)
    with gzip.open(out / 'program.txt.gz', 'wt') as file:
        file.write(compiled.call.as_text())
    path = next(out.glob('plugins/profile/*/*.xplane.pb'))
    total, busy, duration = operations(path)
    steps = _CALLS * flags.steps_per_call
    measure.report(
        'trace',
        config=flags.config,
        changes=flags.set,
        dtype=config.dtype,
        milliseconds_per_step=round(duration / steps / 1e6, 4),
        busy_fraction=round(busy / duration, 4) if duration else None,
        longest_ms_per_step={
            name: round(ns / steps / 1e6, 4) for name, ns in total.most_common(20)
        },
    )


if __name__ == '__main__':
    main()

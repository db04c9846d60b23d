"""Benchmark an accelerator within a time limit: speed, other frameworks, quality, determinism.

    python -m benchmarks.accelerator --minutes=8 --data_dir=DIR --features=DIR --out=DIR

Stages run in order of importance. Each result is appended to OUT/results.jsonl as a JSON line, so
that an interrupted run keeps its results. If a stage fails or exceeds its time limit, the
reason is appended and the next stage starts. `--rehearse` runs every stage with tiny sizes on any
device.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

# The processes of 'peers' need device memory too, and share compiled programs with this process.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', tempfile.mkdtemp(prefix='accelerator_'))

from benchmarks import accelerator_stages as stages
from benchmarks.accelerator_stages import Bench


class Stage(NamedTuple):
    """Function of a stage and its time limit in seconds."""

    run: Callable[[Bench], None]
    seconds: float


STAGES = {
    'rates': Stage(stages.rates, 60),
    'train_step': Stage(stages.train_step, 180),
    'peers': Stage(stages.peers, 180),
    'large_batch': Stage(stages.large_batch, 90),
    'throughput': Stage(stages.throughput, 60),
    'determinism': Stage(stages.determinism, 90),
    'quality': Stage(stages.quality_over_time, 600),
}


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Return a context that raises `TimeoutError` if it takes longer than `seconds`."""

    def expire(*_: object) -> None:
        raise TimeoutError(f'exceeded {seconds:.0f} s')

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--minutes', type=float, default=8, help='time limit of all stages together'
    )
    parser.add_argument('--data_dir', required=True, help='TFDS directory that contains CIFAR-10')
    parser.add_argument(
        '--features',
        required=True,
        help='folder with one .jaxexport extractor and one .npz with its reference statistics',
    )
    parser.add_argument('--out', required=True, help='folder for results.jsonl and sample grids')
    parser.add_argument('--stages', default=','.join(STAGES), help='comma-separated stages')
    parser.add_argument(
        '--configs', default='cifar10,cifar10_sngan,cifar10_resnet,cifar10_best',
        help="comma-separated configs of the stage 'quality'",
    )  # fmt: skip
    parser.add_argument(
        '--set', action='append', default=[], metavar='FIELD=VALUE',
        help="change of a config, except in the stage 'peers'; may be repeated",
    )  # fmt: skip
    parser.add_argument('--rehearse', action='store_true', help='use tiny sizes')
    flags = parser.parse_args()
    names = flags.stages.split(',')
    if unknown := set(names) - set(STAGES):
        parser.error(f'--stages: {", ".join(sorted(unknown))}; choose from {", ".join(STAGES)}')

    bench = Bench(flags)
    for name in names:
        stage, left = STAGES[name], bench.seconds_left()
        start = time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError('no time left')
            # A rehearsal may run on a slow CPU, where compiling takes minutes.
            with _limit(left if flags.rehearse else min(stage.seconds, left)):
                stage.run(bench)
        except Exception as error:  # Later stages do not depend on this one.
            bench.report('accelerator_skipped', stage=name, reason=f'{error!r}'[:500])
        print(f'{name}: {time.monotonic() - start:.0f} s', file=sys.stderr, flush=True)


if __name__ == '__main__':
    main()

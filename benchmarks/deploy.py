"""Latency and throughput of a run's generator in several runtimes, and their cold starts.

    python -m benchmarks.deploy --workdir=RUN

The run is exported in all formats first. Each runtime runs in its own process; in each round they
run one after the other in random order, so that a noisy machine affects all of them. The cold start
is the time from the start of the process to its first image.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.deploy_worker import RUNTIMES
from dcgan_jax import run_dir
from dcgan_jax.tasks import export
from dcgan_jax.tasks.options import TaskOptions


class Worker:
    """The process of a runtime.

    Attributes:
        version: Name and version of the runtime.
        mean: Mean pixel of the first batch, equal in all runtimes up to rounding.
        cold_start: Seconds from the start of the process to the first image.
        seconds: Durations of all batches.
    """

    def __init__(self, runtime: str, flags: list[str]):
        """Start the process and wait for its first image.

        Raises:
            RuntimeError: If it fails, for example because a package is missing.
        """
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'benchmarks.deploy_worker', runtime, *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = self._process.stdout.readline()
        self.cold_start = time.perf_counter() - start
        if not line:
            raise RuntimeError(self._process.stderr.read().strip().splitlines()[-1])
        first = json.loads(line)
        self.version, self.mean = first['version'], first['mean']
        self.seconds: list[float] = []

    def run(self, count: int) -> None:
        """Generate `count` batches."""
        self._process.stdin.write(f'{count}\n')
        self._process.stdin.flush()
        self.seconds += json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Export the run, then measure; print one JSON line per runtime, batch size and core count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--workdir', required=True, help='folder of an unconditional run')
    parser.add_argument('--batch_sizes', default='1,64')
    parser.add_argument('--cores', default='1,0', help='numbers of cores; 0 means all')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--calls', type=int, default=10, help='batches per round')
    parser.add_argument('--only', default=','.join(RUNTIMES), help='comma-separated runtimes')
    flags = parser.parse_args()

    config = run_dir.read(flags.workdir).config
    with tempfile.TemporaryDirectory() as folder:
        for weights in ('float32', 'int8'):
            options = TaskOptions(workdir=flags.workdir, out=folder, format='all', weights=weights)
            export.run(options)
        sizes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
        measure.report('deploy_files', bytes=sizes)
        for cores in flags.cores.split(','):
            for batch_size in flags.batch_sizes.split(','):
                options = {
                    'workdir': flags.workdir, 'exported': folder, 'batch_size': batch_size,
                    'cores': cores, 'latent_dim': config.latent_dim,
                }  # fmt: skip
                arguments = [f'--{name}={value}' for name, value in options.items()]
                _compare(flags, arguments, int(cores), int(batch_size))


def _compare(flags: argparse.Namespace, arguments: list[str], cores: int, batch_size: int) -> None:
    workers = {}
    for name in flags.only.split(','):
        try:
            workers[name] = Worker(name, arguments)
        except RuntimeError as error:
            print(f'{name}: skipped: {error}', file=sys.stderr)
    for index in range(flags.rounds):
        for name in random.Random(index).sample(list(workers), len(workers)):
            workers[name].run(flags.calls)
    for name, worker in workers.items():
        worker.close()
        p50, p95 = np.percentile(worker.seconds, [50, 95])
        measure.report(
            'deploy',
            runtime=name,
            runtime_version=worker.version,
            batch_size=batch_size,
            cores=cores or 'all',
            p50_ms=round(1e3 * p50, 3),
            p95_ms=round(1e3 * p95, 3),
            images_per_s=round(batch_size / p50, 1),
            cold_start_s=round(worker.cold_start, 2),
            mean_pixel=round(worker.mean, 3),
            calls=len(worker.seconds),
        )


if __name__ == '__main__':
    main()

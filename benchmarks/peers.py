"""Compare dcgan_jax with other frameworks, with the same networks, batch size and update.

    python -m benchmarks.peers --config=cifar10 --rounds=7

Each framework runs in its own process. In each round the frameworks run one after the other in
random order, so that changes in the load of the machine affect all of them. Each ratio is the
median over rounds of the framework's time divided by the time of dcgan_jax.
"""

import argparse
import functools
import json
import random
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import measure, program

WORKERS = {
    'dcgan_jax': ['jax_worker'],
    'dcgan_jax_bfloat16': ['jax_worker', '--dtype=bfloat16'],
    'pytorch_eager': ['torch_worker'],
    'pytorch_compiled_channels_last': ['torch_worker', '--compile'],
    'pytorch_compiled_amp': ['torch_worker', '--compile', '--amp'],
    'tf_keras_function': ['keras_worker'],
    'plain_flax_layers': ['jax_worker', '--conv_impl=xla'],
}


class Worker:
    """Process that runs training steps in one framework."""

    def __init__(self, name: str, config_flags: Sequence[str]):
        """Start the process, without waiting for it."""
        module, *flags = WORKERS[name]
        module = f'benchmarks.peer_workers.{module}'
        self._process = subprocess.Popen(
            [sys.executable, '-m', module, *config_flags, *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.seconds: list[float] = []
        self.peak_bytes = 0

    @functools.cached_property
    def about(self) -> dict:
        """Fields sent by the process when it is ready; waits for its first steps."""
        return self._receive()

    def _receive(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._process.stderr.read().strip().splitlines()[-1])
        return json.loads(line)

    def run_round(self, steps: int) -> None:
        """Run a warm-up step, then time `steps` steps."""
        self._process.stdin.write(f'{steps}\n')
        self._process.stdin.flush()
        result = self._receive()
        self.seconds.append(result['seconds'])
        self.peak_bytes = result['peak_bytes']

    def close(self) -> None:
        """Close stdin of the process, and wait until it exits."""
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Time the installed frameworks; print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=1, help='steps in a round')
    parser.add_argument('--only', default=','.join(WORKERS), help='comma-separated frameworks')
    flags = parser.parse_args()

    config_flags = [f'--config={flags.config}', *(f'--set={change}' for change in flags.set)]
    workers = {name: Worker(name, config_flags) for name in flags.only.split(',')}
    for name, worker in list(workers.items()):
        try:
            _ = worker.about
        except RuntimeError as error:
            print(f'{name}: skipped: {error}', file=sys.stderr)
            del workers[name]
    if 'dcgan_jax' not in workers:
        sys.exit('dcgan_jax must be among --only and must run, because it is the baseline')
    sizes = {name: worker.about['parameters'] for name, worker in workers.items()}
    if len({tuple(size) for size in sizes.values()}) != 1:
        sys.exit(f'the networks have different numbers of parameters: {sizes}')
    for index in range(flags.rounds):
        for name in random.Random(index).sample(list(workers), len(workers)):
            workers[name].run_round(flags.steps)
            seconds = workers[name].seconds[-1]
            print(f'round {index}: {name}: {seconds:.4f} s/step', file=sys.stderr, flush=True)

    baseline = workers['dcgan_jax'].seconds
    update_order = program.load_config(flags.config, flags.set).update_order
    for name, worker in workers.items():
        worker.close()
        measure.report(
            'peers',
            config=flags.config,
            changes=flags.set,
            update_order=update_order,
            peer=name,
            peer_version=worker.about['version'],
            seconds_per_step=measure.summary(worker.seconds),
            ratio_to_ours=measure.ratio(worker.seconds, baseline),
            peak_bytes=worker.peak_bytes,
        )


if __name__ == '__main__':
    main()

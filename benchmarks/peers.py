"""The same networks, batch and update here and in other frameworks, in one run, turn by turn.

    python -m benchmarks.peers --config=cifar10 --rounds=7

Each framework is a process of its own; they take turns, in a random order each round, so that a
noisy machine is noisy for all.
The ratios are medians over the rounds of (its seconds / ours).
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
    """A framework's process."""

    def __init__(self, name: str, config_flags: Sequence[str]):
        """Starts it; `about` waits until it has made its first steps."""
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
        """What the worker says of itself once it is ready; `RuntimeError` if it ended instead."""
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._process.stderr.read().strip().splitlines()[-1])
        return json.loads(line)

    def turn(self, steps: int) -> None:
        """Makes a step, then times some."""
        self._process.stdin.write(f'{steps}\n')
        self._process.stdin.flush()
        answer = self._answer()
        self.seconds.append(answer['seconds'])
        self.peak_bytes = answer['peak_bytes']

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Compares the frameworks that are installed; prints one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--steps', type=int, default=1, help='steps a turn')
    parser.add_argument('--only', default=','.join(WORKERS), help='names, comma-separated')
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
        sys.exit('dcgan_jax must be among --only, and run: the others are compared with it')
    sizes = {name: worker.about['parameters'] for name, worker in workers.items()}
    if len({tuple(size) for size in sizes.values()}) != 1:
        sys.exit(f'the networks differ in their numbers of parameters: {sizes}')
    for turn in range(flags.rounds):
        for name in random.Random(turn).sample(list(workers), len(workers)):
            workers[name].turn(flags.steps)
            seconds = workers[name].seconds[-1]
            print(f'round {turn}: {name}: {seconds:.4f} s a step', file=sys.stderr, flush=True)

    ours = workers['dcgan_jax'].seconds
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
            ratio_to_ours=measure.ratio(worker.seconds, ours),
            peak_bytes=worker.peak_bytes,
        )


if __name__ == '__main__':
    main()

"""The stages of `benchmarks.accelerator`."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from benchmarks import measure, program, quality, sampling
from dcgan_jax import models
from dcgan_jax.data import sources
from dcgan_jax.metrics import extractors


class Sizes(NamedTuple):
    """Sizes of the measurements.

    Attributes:
        steps_per_call: Steps per compiled call, ascending. The overhead of a call is computed from
            the last two.
        repeats: Number of timed calls of each program.
        large_batches: Batch sizes of the stage 'large_batch'.
        peers: Names in `benchmarks.peers.WORKERS`.
        rounds: Number of rounds in the stage 'peers'.
        peer_steps: Number of steps in a round of the stage 'peers'.
        images: Number of images that the sampler generates and the extractor processes.
        fingerprint_steps: Number of steps before two states are compared.
        eval_times: Training times in seconds at which samples are evaluated.
        num_samples: Number of samples that are evaluated at each of these times.
        changes: Changes FIELD=VALUE of every config.
    """

    steps_per_call: tuple[int, ...]
    repeats: int
    large_batches: tuple[int, ...]
    peers: tuple[str, ...]
    rounds: int
    peer_steps: int
    images: int
    fingerprint_steps: int
    eval_times: tuple[float, ...]
    num_samples: int
    changes: tuple[str, ...]


FULL = Sizes(
    steps_per_call=(1, 10, 50),
    repeats=7,
    large_batches=(1024, 4096),
    peers=(
        'dcgan_jax', 'dcgan_jax_bfloat16', 'pytorch_eager', 'pytorch_compiled_channels_last',
        'pytorch_compiled_amp',
    ),
    rounds=7,
    peer_steps=20,
    images=10_240,
    fingerprint_steps=100,
    eval_times=(15, 30, 60),
    num_samples=10_000,
    changes=(),
)  # fmt: skip
REHEARSAL = Sizes(
    steps_per_call=(1, 2, 3),
    repeats=1,
    large_batches=(8,),
    peers=('dcgan_jax', 'pytorch_eager'),
    rounds=1,
    peer_steps=1,
    images=16,
    fingerprint_steps=2,
    eval_times=(0.1, 0.2),
    num_samples=16,
    changes=('batch_size=4', 'generator.width=0.05', 'discriminator.width=0.05', 'conv_impl=xla'),
)


class Bench:
    """State shared by the stages: sizes, deadline, results file, and measured rates."""

    def __init__(self, flags: argparse.Namespace):
        """Create the output folder and start the time limit."""
        self.flags = flags
        self.sizes = REHEARSAL if flags.rehearse else FULL
        self.out = Path(flags.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.matmul_flop_per_s: float | None = None
        self.copy_bytes_per_s: float | None = None
        self._deadline = time.monotonic() + 60 * flags.minutes

    def seconds_left(self) -> float:
        """Return the seconds until the deadline, which are negative after it."""
        return self._deadline - time.monotonic()

    def report(self, benchmark: str, **fields: object) -> None:
        """Print a result as a JSON line and append it to the results file."""
        self.append(measure.line(benchmark, **fields))

    def append(self, line: str) -> None:
        """Print a JSON line and append it to the results file."""
        print(line, flush=True)
        with (self.out / 'results.jsonl').open('a') as file:
            file.write(line + '\n')

    def config(self, name: str, **changes: object) -> ConfigDict:
        """Load a config with the changes of `sizes`, `--set`, and `changes` (top-level fields)."""
        config = program.load_config(name, (*self.sizes.changes, *self.flags.set))
        config.update(changes)
        return config

    def rates(self) -> tuple[float, float]:
        """Return FLOP/s of a bfloat16 matrix product and bytes/s of a copy; measure them once."""
        if self.matmul_flop_per_s is None:
            self.matmul_flop_per_s = measure.matmul_rate(jnp.dtype(jnp.bfloat16))
            self.copy_bytes_per_s = measure.copy_rate()
        return self.matmul_flop_per_s, self.copy_bytes_per_s

    def run(self, module: str, *flags: str, **environment: str) -> subprocess.Popen:
        """Start `python -m MODULE FLAGS` in its own process group."""
        return subprocess.Popen(
            [sys.executable, '-m', module, *flags],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | environment,
        )  # fmt: skip


def rates(bench: Bench) -> None:
    """Measure the rates of matrix products and the bandwidth of a copy."""
    float32 = jnp.dtype(jnp.float32)
    bfloat16_rate, copy_rate = bench.rates()
    bench.report(
        'accelerator_rates',
        platform_version=jax.devices()[0].client.platform_version,
        float32_flop_per_s=measure.matmul_rate(float32, precision='highest'),
        float32_default_precision_flop_per_s=measure.matmul_rate(float32),
        bfloat16_flop_per_s=bfloat16_rate,
        copy_bytes_per_s=copy_rate,
    )


def train_step(bench: Bench) -> None:
    """Measure the duration of a `cifar10.py` step in both dtypes, and the overhead of a call."""
    for dtype in ('float32', 'bfloat16'):
        config = bench.config('cifar10', dtype=dtype)
        seconds_per_call = {}
        for steps in bench.sizes.steps_per_call:
            start = time.perf_counter()
            compiled = program.build(config, steps)
            compile_s = time.perf_counter() - start
            repeats = bench.sizes.repeats * (3 if steps < 50 else 1)
            times = measure.seconds(compiled.updates(), repeats)
            seconds_per_call[steps] = measure.summary(times)['median_s']
            per_step = measure.summary([t / steps for t in times])
            bench.report(
                'accelerator_train_step',
                config='cifar10',
                batch_size=config.batch_size,
                dtype=dtype,
                update_order=config.update_order,
                steps_per_call=steps,
                seconds_per_step=per_step,
                images_per_s=round(config.batch_size / per_step['median_s'], 1),
                build_and_compile_s=round(compile_s, 1),
            )
        few, many = bench.sizes.steps_per_call[-2:]
        per_step = (seconds_per_call[many] - seconds_per_call[few]) / (many - few)
        overhead = seconds_per_call[many] - many * per_step
        bench.report(
            'accelerator_host_overhead',
            config='cifar10',
            batch_size=config.batch_size,
            dtype=dtype,
            steps_per_call=many,
            overhead_seconds_per_call=overhead,
            share_of_call=round(overhead / seconds_per_call[many], 4),
        )


def peers(bench: Bench) -> None:
    """Compare with PyTorch, with the same networks, batch size and update."""
    sizes = bench.sizes
    names = ','.join(sizes.peers)
    process = bench.run(
        'benchmarks.peers', '--config=cifar10', f'--only={names}', f'--rounds={sizes.rounds}',
        f'--steps={sizes.peer_steps}', *(['--set=batch_size=4'] if bench.flags.rehearse else []),
    )  # fmt: skip
    for line in _output(process).splitlines():
        bench.append(line)


def large_batch(bench: Bench) -> None:
    """Measure large-batch steps, also relative to the matrix product rate and the bandwidth."""
    flop_rate, byte_rate = bench.rates()
    for batch_size in bench.sizes.large_batches:
        config = bench.config('cifar10', dtype='bfloat16', batch_size=batch_size)
        steps = 10 if batch_size < 4096 else 4
        compiled = program.build(config, steps)
        times = measure.seconds(compiled.updates(), bench.sizes.repeats)
        per_step = measure.summary([t / steps for t in times])
        flops = program.direct_conv_flops(config)
        # The compiler counts the body of a loop once, so these are the bytes of one step.
        moved = (compiled.call.cost_analysis() or {}).get('bytes accessed', 0.0)
        bench.report(
            'accelerator_large_batch',
            config='cifar10',
            batch_size=batch_size,
            dtype='bfloat16',
            update_order=config.update_order,
            steps_per_call=steps,
            seconds_per_step=per_step,
            images_per_s=round(batch_size / per_step['median_s'], 1),
            gflop_per_step=round(flops / 1e9, 1),
            share_of_matmul_rate=round(flops / per_step['median_s'] / flop_rate, 4),
            compiler_gb_per_step=round(moved / 1e9, 3),
            share_of_copy_rate=round(moved / per_step['median_s'] / byte_rate, 4),
            temporary_bytes=compiled.call.memory_analysis().temp_size_in_bytes,
        )


def throughput(bench: Bench) -> None:
    """Measure the throughput of the sampler and the extractor, and the peak device memory."""
    num = bench.sizes.images
    speed = sampling.measure_sampler(bench.config('cifar10'), num, bench.sizes.repeats)
    bench.report('accelerator_sampler', config='cifar10', **speed)
    extractor = extractors.load(*_features(bench, '*.jaxexport'), batch_size=min(256, num))
    pixels = program.random_pixels(num)
    times = measure.seconds(lambda: extractor(pixels), bench.sizes.repeats)
    memory = jax.devices()[0].memory_stats() or {}
    bench.report(
        'accelerator_extractor',
        extractor=extractor.name,
        images=num,
        images_per_s=round(num / measure.summary(times)['median_s'], 1),
        peak_bytes_of_this_process=memory.get('peak_bytes_in_use'),
    )


def determinism(bench: Bench) -> None:
    """Compare the final states of two processes, with and without deterministic XLA kernels."""
    flags = '--config=cifar10', f'--steps={bench.sizes.fingerprint_steps}'
    changes = [f'--set={change}' for change in bench.sizes.changes]
    variants = {'default': '', 'deterministic': ' --xla_gpu_deterministic_ops=true'}
    if jax.default_backend() != 'gpu':
        variants = {'default': ''}
    base = os.environ.get('XLA_FLAGS', '')
    processes = {
        name: [
            bench.run(
                'benchmarks.fingerprint',
                *flags,
                *changes,
                XLA_FLAGS=base + extra,
                JAX_ENABLE_COMPILATION_CACHE='false',  # Each process compiles its own program.
            )
            for _ in range(2)
        ]
        for name, extra in variants.items()
    }
    for name, pair in processes.items():
        first, second = (_output(process).strip() for process in pair)
        bench.report(
            'accelerator_determinism',
            config='cifar10',
            xla_flags=variants[name].strip(),
            steps=bench.sizes.fingerprint_steps,
            equal_bits=first == second,
            sha256=[first, second],
        )


def quality_over_time(bench: Bench) -> None:
    """Measure the FD of each config's samples over the training time, excluding compilation."""
    artifact, reference = _features(bench, '*.jaxexport', '*.npz')
    for name in bench.flags.configs.split(','):
        required = bench.sizes.eval_times[-1] + 30
        if not bench.flags.rehearse and bench.seconds_left() < required:
            bench.report('accelerator_quality', config=name, skipped=f'under {required} s left')
            continue
        config = bench.config(name, data_dir=bench.flags.data_dir)
        config.evaluation.update(
            metrics=('frechet_distance',), num_samples=bench.sizes.num_samples,
            extractor=artifact, reference=reference, batch_size=256,
        )  # fmt: skip
        source = sources.open_split(config, config.data.split)
        networks = models.build(config, source.image_shape, source.num_classes)
        times = list(bench.sizes.eval_times)
        snapshots = quality.train(config, source, networks, times, start=None)
        for score in quality.scores(config, source, networks, snapshots, str(bench.out / name)):
            bench.report('accelerator_quality', config=name, changes=bench.flags.set, **score)


def _features(bench: Bench, *patterns: str) -> list[str]:
    """Return the file in `--features` for each pattern.

    Raises:
        FileNotFoundError: If a pattern does not match exactly one file.
    """
    files = []
    for pattern in patterns:
        paths = sorted(Path(bench.flags.features).glob(pattern))
        if len(paths) != 1:
            raise FileNotFoundError(
                f'--features={bench.flags.features!r} has {len(paths)} files {pattern}; it must '
                'have exactly one'
            )
        files.append(str(paths[0]))
    return files


def _output(process: subprocess.Popen) -> str:
    """Return the output of a process, and finally kill the process and its children.

    Raises:
        RuntimeError: If the process fails.
    """
    try:
        output, _ = process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise RuntimeError(f'{process.args[2]} exited with code {process.returncode}')
    return output

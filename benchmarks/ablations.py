"""Ablations of a training step: its duration with parts removed or computed differently.

    python -m benchmarks.ablations --config=cifar10 --set=dtype=bfloat16 --steps_per_call=50

All variants are compiled first and then timed in turn. Prints one JSON line per variant. The
speedup of a variant is an upper bound of what an optimization can gain; for example, 'no_norms'
omits the logged norms.
"""

import argparse
import contextlib
import functools
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks import measure, program
from dcgan_jax import optimizers


def _shifted_moments(x: jax.Array, axes: object, *_: object, **__: object) -> tuple:
    """Compute the mean and variance in one pass, after subtracting the first value per channel."""
    x = jnp.asarray(x, jnp.float32)
    shift = jax.lax.stop_gradient(x[(0,) * (x.ndim - 1)])
    mean = jnp.mean(x - shift, axes)
    variance = jnp.mean(jnp.square(x - shift), axes) - jnp.square(mean)
    return mean + shift, jnp.maximum(variance, 0.0)


def _flat_optimizer(create: object, *args: object) -> optax.GradientTransformation:
    return optax.flatten(create(*args))


# Functions that create the patch of a variant. It is active while the program is built.
PATCHES = {
    'no_norms': lambda: mock.patch.object(optax.tree, 'norm', return_value=jnp.float32(0.0)),
    'one_pass_moments': lambda: mock.patch.object(
        nn.normalization, '_compute_stats', _shifted_moments
    ),
    'flat_optimizer': lambda: mock.patch.object(
        optimizers, 'create', functools.partial(_flat_optimizer, optimizers.create)
    ),
}
VARIANTS = {'none': (), **{name: (name,) for name in PATCHES}, 'all': tuple(PATCHES)}


def main() -> None:
    """Time the variants and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--steps_per_call', type=int, default=50)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', default=','.join(VARIANTS), help='comma-separated variants')
    flags = parser.parse_args()

    config = program.load_config(flags.config, flags.set)
    updates, seconds = {}, {}
    for name in flags.only.split(','):
        with contextlib.ExitStack() as stack:
            for patch in VARIANTS[name]:
                stack.enter_context(PATCHES[patch]())
            updates[name] = program.build(config, flags.steps_per_call).updates()
        jax.block_until_ready(updates[name]())
        seconds[name] = []
    for _ in range(flags.rounds):
        for name, update in updates.items():
            (time,) = measure.seconds(update, 1)
            seconds[name].append(time / flags.steps_per_call)
    for name, times in seconds.items():
        measure.report(
            'ablations',
            config=flags.config,
            changes=flags.set,
            variant=name,
            steps_per_call=flags.steps_per_call,
            seconds_per_step=measure.summary(times),
        )


if __name__ == '__main__':
    main()

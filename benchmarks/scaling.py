"""Scaling of a step's duration with batch size, width, steps per call, and devices.

    python -m benchmarks.scaling --config=cifar10 --axis=batch_size --values=32,64,128

On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=8 simulates devices for --axis=devices.
"""

import argparse
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import measure, program
from dcgan_jax.runtime import sharding

AXES = ('batch_size', 'width', 'steps_per_call', 'devices')


def time_one(config: ConfigDict, axis: str, value: float, repeats: int) -> dict[str, Any]:
    """Time a training step of a config with one axis set to a value."""
    steps_per_call = 1
    mesh = sharding.create_mesh(config.batch_size)
    if axis == 'batch_size':
        config.batch_size = int(value)
        mesh = sharding.create_mesh(config.batch_size)
    elif axis == 'width':
        config.generator.width = config.discriminator.width = value
    elif axis == 'steps_per_call':
        steps_per_call = int(value)
    else:
        mesh = Mesh(np.asarray(jax.devices()[: int(value)]), (sharding.AXIS,))
    compiled = program.build(config, steps_per_call, num_images=5_000, mesh=mesh)
    times = [t / steps_per_call for t in measure.seconds(compiled.updates(), repeats)]
    result = measure.summary(times)
    return {
        'axis': axis,
        'value': value,
        'seconds_per_step': result,
        'images_per_s': round(config.batch_size / result['median_s'], 1),
    }


def main() -> None:
    """Time each value of an axis; print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--axis', choices=AXES, default='batch_size')
    parser.add_argument('--values', default='32,64,128')
    parser.add_argument('--repeats', type=int, default=5)
    flags = parser.parse_args()
    for value in flags.values.split(','):
        config = program.load_config(flags.config, flags.set)
        result = time_one(config, flags.axis, float(value), flags.repeats)
        measure.report('scaling', config=flags.config, changes=flags.set, **result)


if __name__ == '__main__':
    main()

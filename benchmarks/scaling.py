"""How an update's cost grows with batch, width, updates a call, and devices.

    python -m benchmarks.scaling --config=cifar10 --axis=batch_size --values=32,64,128

--axis=devices takes simulated ones: XLA_FLAGS=--xla_force_host_platform_device_count=8
"""

import argparse

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import measure, program
from dcgan_jax import mesh as mesh_lib

AXES = ('batch_size', 'width', 'steps_per_call', 'devices')


def time_one(config_name: str, axis: str, value: float, repeats: int) -> None:
    """Times one config changed along one axis; prints one JSON line."""
    config = program.load_config(config_name)
    steps_per_call = 1
    mesh = mesh_lib.create(config.batch_size)
    if axis == 'batch_size':
        config.batch_size = int(value)
        mesh = mesh_lib.create(config.batch_size)
    elif axis == 'width':
        config.generator.width = config.discriminator.width = value
    elif axis == 'steps_per_call':
        steps_per_call = int(value)
    else:
        mesh = Mesh(np.asarray(jax.devices()[: int(value)]), (mesh_lib.AXIS,))
    compiled = program.build(config, steps_per_call, num_images=5_000, mesh=mesh)
    times = [t / steps_per_call for t in measure.seconds(compiled.updates(), repeats)]
    result = measure.summary(times)
    measure.report(
        'scaling',
        config=config_name,
        axis=axis,
        value=value,
        seconds_per_step=result,
        images_per_s=round(config.batch_size / result['median_s'], 1),
    )


def main() -> None:
    """Times each value of one axis."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default='cifar10', help='a file of configs/, without .py')
    parser.add_argument('--axis', choices=AXES, default='batch_size')
    parser.add_argument('--values', default='32,64,128')
    parser.add_argument('--repeats', type=int, default=5)
    flags = parser.parse_args()
    for value in flags.values.split(','):
        time_one(flags.config, flags.axis, float(value), flags.repeats)


if __name__ == '__main__':
    main()

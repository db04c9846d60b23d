"""Throughput of sampling, and the duration of estimating the standing statistics.

python -m benchmarks.sampling --config=cifar10 --num=1024
"""

import argparse
from typing import Any

from ml_collections import ConfigDict

from benchmarks import measure, program
from dcgan_jax.sampling import Sampler


def measure_sampler(config: ConfigDict, num: int, repeats: int) -> dict[str, Any]:
    """Time the sampling of one batch and of `num` images, which must be more than one batch."""
    compiled = program.build(config, steps_per_call=1, num_images=config.batch_size)
    sampler = Sampler(compiled.networks.generator, config)
    few, many = (sampler.latents(0, count) for count in (config.batch_size, num))
    one_batch, all_batches = (
        measure.summary(measure.seconds(lambda z=z: sampler(compiled.state, z), repeats))
        for z in (few, many)
    )
    extra_s = all_batches['median_s'] - one_batch['median_s']
    batch_s = extra_s / (num / config.batch_size - 1)
    return {
        'batch_size': config.batch_size,
        'num': num,
        'whole_run': all_batches,
        'images_per_s': round(config.batch_size / batch_s, 1),
        'statistics_s': round(one_batch['median_s'] - batch_s, 3),
    }


def main() -> None:
    """Time sampling; print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument(
        '--num', type=int, default=1024, help='number of images; more than one batch'
    )
    parser.add_argument('--repeats', type=int, default=5)
    flags = parser.parse_args()

    config = program.load_config(flags.config, flags.set)
    speed = measure_sampler(config, flags.num, flags.repeats)
    measure.report('sampling', config=flags.config, changes=flags.set, **speed)


if __name__ == '__main__':
    main()

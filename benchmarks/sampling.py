"""Images a second of the averaged generator, and what its BatchNorm statistics cost before.

python -m benchmarks.sampling --config=cifar10 --num=1024
"""

import argparse

from benchmarks import measure, program
from dcgan_jax.sampling import Sampler


def main() -> None:
    """Times sampling; prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default='cifar10', help='a file of configs/, without .py')
    parser.add_argument('--num', type=int, default=1024, help='images a run; more than a batch')
    parser.add_argument('--repeats', type=int, default=5)
    flags = parser.parse_args()

    config = program.load_config(flags.config)
    compiled = program.build(config, steps_per_call=1, num_images=config.batch_size)
    sampler = Sampler(compiled.networks.generator, config)
    state = compiled.state
    few, many = (sampler.latents(0, count) for count in (config.batch_size, flags.num))
    one_batch = measure.seconds(lambda: sampler(state, few), flags.repeats)
    all_batches = measure.seconds(lambda: sampler(state, many), flags.repeats)
    extra_s = measure.summary(all_batches)['median_s'] - measure.summary(one_batch)['median_s']
    batch_s = extra_s / (flags.num / config.batch_size - 1)
    measure.report(
        'sampling',
        config=flags.config,
        batch_size=config.batch_size,
        num=flags.num,
        whole_run=measure.summary(all_batches),
        images_per_s=round(config.batch_size / batch_s, 1),
        statistics_s=round(measure.summary(one_batch)['median_s'] - batch_s, 3),
    )


if __name__ == '__main__':
    main()

"""Time to load batches that are gathered on the device, or streamed with Grain.

    python -m benchmarks.input_pipeline --config=cifar10 --data_dir=../shared/tfds

'on_device_share' is the time of index sampling, transfer and gather divided by that of the whole
step; 'stream_share' is the time to read a batch from the stream divided by that of the step. The
stream keeps up with training if 'stream_share' is below 1.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp

from benchmarks import measure, program
from dcgan_jax.data import images, input_pipeline, sources
from dcgan_jax.parallel import CallRanges
from dcgan_jax.runtime import sharding


def main() -> None:
    """Time a step, a batch on the device, and a streamed batch; print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--data_dir', default=None)
    parser.add_argument('--repeats', type=int, default=7)
    flags = parser.parse_args()

    config = program.load_config(flags.config, flags.set)
    source = sources.open_source(config.dataset, 'train', flags.data_dir)
    compiled = program.build(config, steps_per_call=1)
    gather = jax.jit(lambda split, batch: images.to_float(jnp.take(split.images, batch, axis=0)))
    placed = sharding.sharded(compiled.mesh)
    numbers = itertools.count()

    def batch() -> jax.Array:
        indices = input_pipeline.batch_indices(
            0, next(numbers), config.batch_size, program.NUM_IMAGES
        )[0]
        return gather(compiled.split, jax.device_put(indices, placed))

    ranges = CallRanges(0, 10_000, 1)
    stream = input_pipeline.stream(source, config.seed, ranges, config.batch_size)
    steps = measure.seconds(compiled.updates(), flags.repeats)
    batches = measure.seconds(batch, 10 * flags.repeats)
    streamed = measure.seconds(lambda: next(stream), 20 * flags.repeats)
    stream.close()
    step_s = measure.summary(steps)['median_s']
    # The stream prefetches, so in a long run the mean matters, not the median.
    streamed_s = sum(streamed) / len(streamed)
    measure.report(
        'input_pipeline',
        config=flags.config,
        batch_size=config.batch_size,
        source=source.name,
        seconds_per_step=measure.summary(steps),
        on_device_batch=measure.summary(batches),
        on_device_share=round(measure.summary(batches)['median_s'] / step_s, 5),
        streamed_images_per_s=round(config.batch_size / streamed_s, 1),
        stream_share=round(streamed_s / step_s, 4),
    )


if __name__ == '__main__':
    main()

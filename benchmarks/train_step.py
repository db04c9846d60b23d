"""Duration of a training step, images/s, and FLOP/s relative to those of a matrix product.

python -m benchmarks.train_step --config=cifar10 --batch_size=128 --steps_per_call=1
"""

import argparse
import time

import jax.numpy as jnp

from benchmarks import measure, program


def main() -> None:
    """Time one config and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--batch_size', type=int, default=0, help="0 means the config's")
    parser.add_argument('--dtype', default='', help="'' means the config's")
    parser.add_argument('--steps_per_call', type=int, default=1)
    parser.add_argument('--repeats', type=int, default=11, help='number of timed calls')
    flags = parser.parse_args()

    config = program.load_config(flags.config, flags.set)
    config.batch_size = flags.batch_size or config.batch_size
    config.dtype = flags.dtype or config.dtype
    start = time.perf_counter()
    compiled = program.build(config, flags.steps_per_call)
    compile_s = time.perf_counter() - start

    seconds = measure.seconds(compiled.updates(), flags.repeats)
    times = [t / flags.steps_per_call for t in seconds]
    result = measure.summary(times)
    flops = program.direct_conv_flops(config)
    rate = measure.matmul_rate(jnp.dtype(config.dtype))
    measure.report(
        'train_step',
        config=flags.config,
        changes=flags.set,
        update_order=config.update_order,
        batch_size=config.batch_size,
        dtype=config.dtype,
        steps_per_call=flags.steps_per_call,
        seconds_per_step=result,
        images_per_s=round(config.batch_size / result['median_s'], 1),
        gflop_per_step=round(flops / 1e9, 1),
        flop_per_s=flops / result['median_s'],
        matmul_flop_per_s=rate,
        share_of_matmul_rate=round(flops / result['median_s'] / rate, 3),
        build_and_compile_s=round(compile_s, 1),
        temporary_bytes=compiled.call.memory_analysis().temp_size_in_bytes,
    )


if __name__ == '__main__':
    main()

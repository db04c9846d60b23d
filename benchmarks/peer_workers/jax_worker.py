"""Benchmark worker of dcgan_jax; `--conv_impl=xla` computes convolutions like `nn.Conv`."""

import argparse
import sys

import jax

from benchmarks import program
from benchmarks.peer_workers.serve import serve
from dcgan_jax import parallel


def main() -> None:
    """Serve training steps of one config."""
    parser = argparse.ArgumentParser()
    program.add_config_flags(parser)
    parser.add_argument('--conv_impl', default='auto')
    parser.add_argument('--dtype', default='float32')
    flags = parser.parse_args()
    config = program.load_config(flags.config, flags.set)
    config.conv_impl, config.dtype = flags.conv_impl, flags.dtype
    updates = parallel.steps_per_call(config)
    built = program.build(config, updates)
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(network.params))
        for network in (built.state.generator, built.state.discriminator)
    ]
    version = jax.__version__
    serve(built.updates(), jax.block_until_ready, updates, parameters=sizes, version=version)


if __name__ == '__main__':
    sys.exit(main())

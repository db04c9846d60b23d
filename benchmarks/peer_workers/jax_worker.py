"""This project, with `--lowering=auto`, or plain flax layers: 'xla' is what `nn.Conv` computes."""

import argparse
import sys

import jax

from benchmarks import program
from benchmarks.peer_workers.serve import serve


def main() -> None:
    """Serves updates of one config."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--config', required=True)
    parser.add_argument('--lowering', required=True)
    flags = parser.parse_args()
    config = program.load_config(flags.config)
    config.lowering = flags.lowering
    compiled = program.build(config, steps_per_call=1)
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(network.params))
        for network in (compiled.state.generator, compiled.state.discriminator)
    ]
    serve(compiled.updates(), jax.block_until_ready, parameters=sizes, version=jax.__version__)


if __name__ == '__main__':
    sys.exit(main())

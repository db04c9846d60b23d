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
    state = compiled.state

    def step() -> jax.Array:
        nonlocal state
        state = compiled.run(state)
        return state.step

    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(network.params))
        for network in (state.generator, state.discriminator)
    ]
    serve(step, jax.block_until_ready, parameters=sizes, version=jax.__version__)


if __name__ == '__main__':
    sys.exit(main())

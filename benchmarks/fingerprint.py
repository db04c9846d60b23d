"""Print the SHA-256 of the training state after some steps on random images.

python -m benchmarks.fingerprint --config=cifar10 --steps=100
"""

import argparse
import hashlib

import jax
import numpy as np

from benchmarks import program


def main() -> None:
    """Train, then print the SHA-256 of the state."""
    parser = argparse.ArgumentParser(description=__doc__)
    program.add_config_flags(parser)
    parser.add_argument('--steps', type=int, default=100)
    flags = parser.parse_args()
    compiled = program.build(program.load_config(flags.config, flags.set), flags.steps)
    state, _ = compiled.call(compiled.state, compiled.split, compiled.batches, compiled.teacher)
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    print(digest.hexdigest())


if __name__ == '__main__':
    main()

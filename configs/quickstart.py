"""DCGAN on the procedurally generated data set `shapes`: minutes on a CPU, without a download.

    python main.py --config=configs/quickstart.py --workdir=/tmp/run

`shapes` has 1,000 modes: ten shapes, ten colors, ten backgrounds. After 4,000 steps nearly every
sample has one object of one color on one of the backgrounds; about a quarter of the objects are
recognizable shapes.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: a quarter of the width of `cifar10.py`, high learning rates."""
    config = cifar10.get_config()
    config.dataset = 'shapes'
    config.batch_size = 32
    config.num_steps = 4_000
    config.log_every = 50
    config.sample_every = 500
    config.checkpoint_every = 500
    config.generator.width = 0.25
    config.discriminator.width = 0.25
    config.optimizer.generator.learning_rate = 1e-3
    config.optimizer.discriminator.learning_rate = 5e-4
    return config

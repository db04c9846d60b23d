"""The procedurally generated data set `shapes` in a few minutes on two CPU cores; no download.

    python main.py --config=configs/quickstart.py --workdir=/tmp/run

`shapes` has 1,000 modes: ten shapes, ten colors, ten backgrounds. After these 4,000 steps nearly
every sample has one object of one color on one of the backgrounds; about a quarter of the objects
are recognizable shapes.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """The default networks at a quarter of their width, with high learning rates."""
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

"""Drawn shapes in three minutes on two CPU cores: no download, a DCGAN at a quarter width.

    python main.py --config=configs/quickstart.py --workdir=/tmp/run

`shapes` has 1,000 modes: ten shapes, ten colours, ten backgrounds. After these 4,000 steps nearly
every picture has one object of one colour on one of the backgrounds; about a quarter are shapes
that a person names at once, the others lumps.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    """The default network at a quarter of its width, in small and large steps."""
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

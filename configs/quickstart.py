"""Three minutes on two CPU cores: drawn shapes, no download, a small DCGAN.

python main.py --config=configs/quickstart.py --workdir=/tmp/run
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    """The default network at a quarter of its width, on the embedded data set `shapes`."""
    config = cifar10.get_config()
    config.dataset = 'shapes'
    config.batch_size = 64
    config.num_steps = 1_500
    config.log_every = 50
    config.sample_every = 250
    config.checkpoint_every = 500
    config.generator.width = 0.25
    config.discriminator.width = 0.25
    return config

"""CIFAR-10 in half an hour on two CPU cores.

    python main.py --config=configs/cifar10_cpu.py --workdir=/tmp/cpu

What a short run needs is updates: `cifar10.py` at half its width, batches of 16, rates five times
(G) and two and a half times (D) as high, which fall to zero over the second half. Biases let D see
contrast: without them LeakyReLU and BatchNorm hide it from D, and pictures turn grey. What each
change is worth, and the figures of a run, stand in docs/recipes.md.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    """Half the width, batches of 16, rates that fall, a D that sees contrast."""
    config = cifar10.get_config()
    config.batch_size = 16
    config.num_steps = 36_000
    config.checkpoint_every = 3_000
    config.sample_every = 3_000
    config.generator.width = 0.5
    config.discriminator.width = 0.5
    config.discriminator.use_bias = True
    config.augment.horizontal_flip = True
    config.optimizer.generator.learning_rate = 1e-3
    config.optimizer.discriminator.learning_rate = 5e-4
    for optimizer in config.optimizer.values():
        optimizer.b2 = 0.99
        optimizer.schedule = 'linear'
        optimizer.decay_start, optimizer.decay_end = 18_000, 36_000
    return config

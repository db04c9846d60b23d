"""CIFAR-10 in half an hour on two CPU cores.

    python main.py --config=configs/cifar10_cpu.py --workdir=/tmp/cpu

What a short run needs is many updates that end small: `cifar10.py` in batches of 32, rates five
times (G) and two and a half times (D) as high, which fall to zero over the second half; before that
the pictures are blobs. Biases let D see contrast: without them LeakyReLU and BatchNorm hide it from
D, and pictures turn grey. Measured alone on 2 cores: 26 minutes, FD (efficientnet_lite0) 43.2,
where `cifar10.py` has 135.4 after 30. What each change is worth stands in docs/recipes.md.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    """Batches of 32, rates that fall, a D that sees contrast."""
    config = cifar10.get_config()
    config.batch_size = 32
    config.update_order = 'simultaneous'  # Better in docs/recipes.md's comparison.
    config.num_steps = 6_400
    config.checkpoint_every = 800
    config.sample_every = 800
    config.discriminator.use_bias = True
    config.augment.horizontal_flip = True
    config.optimizer.generator.learning_rate = 1e-3
    config.optimizer.discriminator.learning_rate = 5e-4
    for optimizer in config.optimizer.values():
        optimizer.b2 = 0.99
        optimizer.schedule = 'linear'
        optimizer.decay_start, optimizer.decay_end = 3_200, 6_400
    return config

"""CIFAR-10 in half an hour on two CPU cores.

    python main.py --config=configs/cifar10_cpu.py --workdir=/tmp/cpu

What a short run needs is updates: `cifar10.py` at a quarter of its width, batches of 16, rates five
times (G) and two and a half times (D) as high, which fall to zero over the second half. It takes
72,000 steps of 18 ms, 22 minutes. FD (efficientnet_lite0) of 5,000 samples stands at 60 to 62 from
the fifth minute on, so this recipe is not done: see docs/recipes.md.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    """A quarter of the width, batches of 16, rates that fall."""
    config = cifar10.get_config()
    config.batch_size = 16
    config.num_steps = 72_000
    config.checkpoint_every = 5_000
    config.sample_every = 5_000
    config.generator.width = 0.25
    config.discriminator.width = 0.25
    config.optimizer.generator.learning_rate = 1e-3
    config.optimizer.discriminator.learning_rate = 5e-4
    for optimizer in config.optimizer.values():
        optimizer.schedule = 'linear'
        optimizer.decay_start, optimizer.decay_end = 36_000, 72_000
    return config

"""CIFAR-10 in half an hour on two CPU cores.

    python main.py --config=configs/cifar10_cpu.py --workdir=/tmp/cpu

A short run needs many updates and a decay of the learning rates: `cifar10.py` with batches of 32,
learning rates five times (G) and two and a half times (D) as high, which decay to zero over the
second half. Without biases, BatchNorm makes D invariant to contrast, and samples become gray; so D
has biases. Measured on 2 cores: FD (efficientnet_lite0) 43.2 after 26 minutes, where `cifar10.py`
has 135.4 after 30. docs/recipes.md has the effect of each change.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Batches of 32, decaying learning rates, biases in D."""
    config = cifar10.get_config()
    config.batch_size = 32
    config.update_order = 'simultaneous'  # See the comparison in docs/recipes.md.
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

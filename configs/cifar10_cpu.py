"""CIFAR-10 in half an hour on two CPU cores.

    python main.py --config=configs/cifar10_cpu.py --workdir=/tmp/cpu

Short runs need many updates and decaying learning rates. This config is `cifar10.py` with batch
size 32 and with learning rates that are five times (G) and two and a half times (D) as high and
decay to zero from step 6,000 on. D has biases: without them, BatchNorm makes D invariant to
contrast, and samples become gray. On 2 cores of a CPU with AMX, the FD (efficientnet_lite0, JPEG
copy of CIFAR-10) is 39.8 after 30 minutes and 16,002 steps. On a CPU without AMX, 6,400 steps took
26 minutes (docs/recipes.md has the results, and the effect of each change).
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: batch size 32, bfloat16, decaying learning rates, biases in D."""
    config = cifar10.get_config()
    config.batch_size = 32
    config.dtype = 'bfloat16'
    config.num_steps = 18_000
    config.checkpoint_every = 1_800
    config.sample_every = 1_800
    config.discriminator.use_bias = True
    config.augment.horizontal_flip = True
    config.optimizer.generator.learning_rate = 1e-3
    config.optimizer.discriminator.learning_rate = 5e-4
    for optimizer in config.optimizer.values():
        optimizer.b2 = 0.99
        optimizer.schedule = 'linear'
        optimizer.decay_start, optimizer.decay_end = 6_000, 18_000
    return config

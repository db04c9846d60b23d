"""The networks of `cifar10.py` with the recipe of `cifar10_cpu.py` for 10 million images.

    python main.py --config=configs/cifar10_best.py --workdir=/tmp/best

The config trains for 320,000 steps with batch size 32. On one H200 with alternating updates
(docs/gpu.md), the FD (efficientnet_lite0) was 35.0 after 10,300 steps, but 177.9 after 40,800
steps, where training had collapsed: the learning rates are too high to stay constant for so many
steps. Use `cifar10_sngan.py` on a GPU, and `cifar10_cpu.py` on CPUs.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10_cpu


def get_config() -> ConfigDict:
    """Return the config: `cifar10_cpu.py` with a longer schedule."""
    config = cifar10_cpu.get_config()
    config.dtype = 'float32'
    config.num_steps = 320_000
    config.checkpoint_every = 10_000
    config.sample_every = 10_000
    for optimizer in config.optimizer.values():
        optimizer.decay_start, optimizer.decay_end = 160_000, 320_000
    return config

"""The networks of `cifar10.py` with the recipe of `cifar10_cpu.py` for 10 million images.

    python main.py --config=configs/cifar10_best.py --workdir=/tmp/best

320,000 steps of 32 images. Measured on one H200 with alternating updates (docs/gpu.md): FD
(efficientnet_lite0) 35.0 after 10,300 steps, but 177.9 after 40,800, where training had collapsed:
the learning rates are too high for so many steps at a constant rate. Use `cifar10_sngan.py` on a
GPU, and `cifar10_cpu.py` on CPUs.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10_cpu


def get_config() -> ConfigDict:
    """The recipe of `cifar10_cpu.py` for ten million images."""
    config = cifar10_cpu.get_config()
    config.num_steps = 320_000
    config.checkpoint_every = 10_000
    config.sample_every = 10_000
    for optimizer in config.optimizer.values():
        optimizer.decay_start, optimizer.decay_end = 160_000, 320_000
    return config

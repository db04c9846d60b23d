"""The networks of `cifar10.py`, trained by what the search for CPU recipes found best.

    python main.py --config=configs/cifar10_best.py --workdir=/tmp/best

Biases let D see contrast (without them LeakyReLU and BatchNorm hide it), small batches make many
updates, rates fall to zero over the second half, real images are mirrored: see docs/recipes.md.
320,000 steps of 32 images show 10 million. Measured on one H200 (docs/gpu.md): FD
(efficientnet_lite0) 35.0 after 10,300 steps, but collapsed after 40,800 (177.9), with alternating
updates: the rates are too high to be held that long. Take `cifar10_sngan.py` on a GPU, and
`cifar10_cpu.py`, which is the same for 6,400 steps, on CPUs.
"""

from ml_collections import ConfigDict

from configs import cifar10_cpu


def get_config() -> ConfigDict:
    """The recipe of `cifar10_cpu.py` for ten million images."""
    config = cifar10_cpu.get_config()
    config.num_steps = 320_000
    config.checkpoint_every = 10_000
    config.sample_every = 10_000
    for optimizer in config.optimizer.values():
        optimizer.decay_start, optimizer.decay_end = 160_000, 320_000
    return config

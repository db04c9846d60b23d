"""SNGAN with residual networks at 32x32 (Miyato et al. 2018, arXiv:1802.05957, table 4).

    python main.py --config=configs/cifar10_resnet.py --workdir=/tmp/resnet

Weights are initialized by `glorot_uniform`, without the gain of sqrt(2) that the authors' code
applies to the 3x3 convolutions of residual blocks. G has 4.3 million parameters and D 1.1 million.
There are five updates of D per step, with Adam(2e-4, b1=0, b2=0.9) and learning rates that decay to
0 over 100,000 steps. Published FIDs: 21.7 (the paper), 16.8 (mimicry, 50,000 samples against the
training split). The config is intended for a GPU or TPU, but has not been evaluated there. A short
run at a quarter of the width on one CPU core with simultaneous updates (docs/recipes.md) has an FD
(efficientnet_lite0) of 240 after 184 steps (12 minutes).
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: residual networks, spectral normalization in D, hinge loss."""
    config = cifar10.get_config()
    config.batch_size = 64
    config.num_steps = 100_000
    config.latent_dim = 128
    config.loss.name = 'hinge'
    config.discriminator_steps = 5
    for network in (config.generator, config.discriminator):
        network.block = 'residual'
        network.kernel_size = 3
        network.use_bias = True
        network.weight_init = 'glorot_uniform'
    config.generator.base_features = 256
    config.generator.features = (256, 256, 256)
    config.generator.strides = (2, 2, 2, 1)
    config.discriminator.features = (128, 128, 128, 128)
    config.discriminator.strides = (2, 2, 1, 1)
    config.discriminator.head = 'sum'
    config.discriminator.leaky_slope = 0.0  # ReLU
    config.discriminator.norm = 'none'
    config.discriminator.spectral_norm = True
    for optimizer in config.optimizer.values():
        optimizer.b1, optimizer.b2 = 0.0, 0.9
        optimizer.schedule, optimizer.decay_end = 'linear', 100_000
    return config

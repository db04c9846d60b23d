"""WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1) with the networks of `cifar10.py`.

    python main.py --config=configs/cifar10_wgan_gp.py --workdir=/tmp/wgan_gp

The critic uses layer normalization, because with BatchNorm the penalized gradient of an image would
depend on the whole batch. There are five updates of the critic per step. Published FID with a CNN:
19.8 (pytorch-gan-collections, 50,000 samples against the training split). The config is intended
for a GPU or TPU, but has not been evaluated there. A short run at a quarter of the width on one CPU
core with simultaneous updates (docs/recipes.md) has an FD (efficientnet_lite0) of 246 after 500
steps (7 minutes).
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: Wasserstein loss, gradient penalty of 10, five updates of D per step."""
    config = cifar10.get_config()
    config.batch_size = 64
    config.num_steps = 100_000
    config.loss.name = 'wasserstein'
    config.penalty.wgan_gp = 10.0
    config.discriminator_steps = 5
    config.discriminator.norm = 'layer'
    config.discriminator.use_bias = True
    for optimizer in config.optimizer.values():
        optimizer.learning_rate = 1e-4
        optimizer.b1, optimizer.b2 = 0.0, 0.9
    return config

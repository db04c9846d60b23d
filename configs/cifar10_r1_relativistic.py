"""The relativistic pairing loss with R1 and R2 (Huang et al. 2024, arXiv:2501.05441, section 2).

    python main.py --config=configs/cifar10_r1_relativistic.py --workdir=/tmp/relativistic

The loss has no bad local optima, and with both penalties training converges locally; D needs no
normalization. This config uses the networks of `cifar10.py` instead of those of the paper, whose
FID of 1.96 also requires class conditioning and days of training. The second-order gradients make
an update about three times as slow. The config is intended for a GPU or TPU, but has not been
evaluated there. A short run at a quarter of the width on one CPU core with simultaneous updates
(docs/recipes.md) has an FD (efficientnet_lite0) of 240 after 1,000 steps (7 minutes).
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: relativistic loss, R1 and R2 at every step, no normalization in D."""
    config = cifar10.get_config()
    config.loss.name = 'relativistic'
    config.penalty.r1 = config.penalty.r2 = 1.0
    config.discriminator.norm = 'none'
    config.discriminator.use_bias = True
    config.discriminator.weight_init = 'he_normal'
    config.augment.horizontal_flip = True
    for optimizer in config.optimizer.values():
        optimizer.b1, optimizer.b2 = 0.0, 0.99
    return config

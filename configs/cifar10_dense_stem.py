"""A published variant of DCGAN: dense layers before the first feature map, no BatchNorm in D.

    python main.py --config=configs/cifar10_dense_stem.py --workdir=/tmp/dense_stem

Updates are simultaneous, as in the original. The first feature map (`generator.base_size`) has 8x8
instead of the original's 9x9 pixels, because the image size differs. The config is intended for a
GPU or TPU, but has not been evaluated there. A short run at a quarter of the width on one CPU core
(docs/recipes.md) has an FD (efficientnet_lite0) of 294 after 1,000 steps (3 minutes); its samples
lack diversity.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: dense layers in G, biases, simultaneous updates."""
    config = cifar10.get_config()
    config.update_order = 'simultaneous'
    for network in ('generator', 'discriminator'):
        config[network].update(
            leaky_slope=0.3, use_bias=True, norm_momentum=0.99, norm_epsilon=1e-3,
            weight_init='glorot_uniform',
        )  # fmt: skip
        config.optimizer[network].eps = 1e-7
    config.generator.update(
        stem_features=(128, 128, 100), stem_norm=False, activation='leaky_relu',
        base_size=8, base_features=256, features=(128, 64), strides=(1, 2, 2),
    )  # fmt: skip
    config.discriminator.update(features=(64, 128, 256), norm='none')
    return config

"""Class-conditional images: conditional BatchNorm in G, a projection discriminator.

    python main.py --config=configs/cifar10_conditional.py --workdir=/tmp/conditional
    python main.py --mode=sample --workdir=/tmp/conditional --num=100

`cifar10_sngan.py` with classes (Miyato & Koyama 2018, arXiv:1802.05637; Dumoulin et al. 2017,
arXiv:1610.07629). Works for any data set with a TFDS feature `label`, and for a folder with a
subfolder for each class. Sample i is of class i modulo the number of classes. Intended for a GPU or
TPU, where it has not been measured. A short run at a quarter of the width on one CPU core, with
simultaneous updates (docs/recipes.md): 1,500 steps, 10 minutes, FD (efficientnet_lite0) 236.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10_sngan


def get_config() -> ConfigDict:
    """SNGAN with class conditioning."""
    config = cifar10_sngan.get_config()
    config.conditional = True
    config.augment.horizontal_flip = True
    return config

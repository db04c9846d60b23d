"""Images by class: conditional BatchNorm in G, a projection discriminator.

    python main.py --config=configs/cifar10_conditional.py --workdir=/tmp/conditional
    python main.py --mode=sample --workdir=/tmp/conditional --num=100

`cifar10_sngan.py` with classes (Miyato & Koyama 2018, arXiv:1802.05637; Dumoulin et al. 2017,
arXiv:1610.07629). Any data set with a TFDS feature `label`, or a folder with a subfolder for each
class, will do. Sample i shows class i modulo the number of classes. Hardware: one GPU or TPU; not
measured there yet. With simultaneous updates, a first look at a quarter of the width on one CPU
core (docs/recipes.md): 1,500 steps, 10 minutes, FD (efficientnet_lite0) 236.
"""

from ml_collections import ConfigDict

from configs import cifar10_sngan


def get_config() -> ConfigDict:
    """SNGAN with class labels."""
    config = cifar10_sngan.get_config()
    config.conditional = True
    config.augment.horizontal_flip = True
    return config

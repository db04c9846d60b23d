"""CIFAR-10 from grey to colour (pix2pix: Isola et al. 2017, arXiv:1611.07004).

    python main.py --config=configs/colour_cifar10.py --workdir=/tmp/colour
    python main.py --mode=translate --workdir=/tmp/colour

Measured on the test split, which training does not see.
"""

from ml_collections import ConfigDict

from configs import inpainting_cifar10


def get_config() -> ConfigDict:
    """The network of inpainting on grey images."""
    config = inpainting_cifar10.get_config()
    config.input.kind = 'grey'
    return config

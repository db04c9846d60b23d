"""Colorization of CIFAR-10 (pix2pix: Isola et al. 2017, arXiv:1611.07004).

    python main.py --config=configs/colorization_cifar10.py --workdir=/tmp/color
    python main.py --mode=translate --workdir=/tmp/color

Results on 500 test images after 1,500 steps with learning rates that decay from step 750 (eleven
minutes on one CPU core, simultaneous updates): FD (efficientnet_lite0) 56.8, gray images 89.4; PSNR
24.01 dB, gray images 25.50 dB, because a wrong color lowers PSNR more than no color. The full
10,000 steps are intended for a GPU or TPU, where they have not been measured.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import inpainting_cifar10


def get_config() -> ConfigDict:
    """Return the config: the networks and losses of inpainting with gray images as input."""
    config = inpainting_cifar10.get_config()
    config.input.kind = 'gray'
    return config

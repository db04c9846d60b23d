"""Colorization of CIFAR-10 (pix2pix: Isola et al. 2017, arXiv:1611.07004).

    python main.py --config=configs/colorization_cifar10.py --workdir=/tmp/color
    python main.py --mode=translate --workdir=/tmp/color

Results on 500 test images after 1,500 steps with learning rates that decay from step 750 (eleven
minutes on one CPU core, simultaneous updates): the FD (efficientnet_lite0) is 56.8, compared to
89.4 for the gray images. The PSNR is 24.01 dB, compared to 25.50 dB for the gray images, because a
wrong color lowers the PSNR more than no color. The full 10,000 steps are intended for a GPU or TPU,
but have not been evaluated there.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import inpainting_cifar10


def get_config() -> ConfigDict:
    """Return the config: the networks and losses of inpainting with gray images as input."""
    config = inpainting_cifar10.get_config()
    config.input.kind = 'gray'
    return config

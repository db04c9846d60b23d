"""Colorization of CIFAR-10 (pix2pix: Isola et al. 2017, arXiv:1611.07004).

    python main.py --config=configs/colorization_cifar10.py --workdir=/tmp/color
    python main.py --mode=translate --workdir=/tmp/color

On 500 test images after 1,500 steps with learning rates that decay from step 750 (eleven minutes on
one CPU core, simultaneous updates): FD (efficientnet_lite0) 56.8, gray images 89.4; PSNR 24.01 dB,
gray images 25.50, since a wrong color costs more than none. All 10,000 steps are intended for a GPU
or TPU, where they have not been measured.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import inpainting_cifar10


def get_config() -> ConfigDict:
    """The network of inpainting, for gray images."""
    config = inpainting_cifar10.get_config()
    config.input.kind = 'gray'
    return config

"""CIFAR-10 from grey to colour (pix2pix: Isola et al. 2017, arXiv:1611.07004).

    python main.py --config=configs/colour_cifar10.py --workdir=/tmp/colour
    python main.py --mode=translate --workdir=/tmp/colour

On 500 test images, which training does not see, after 1,500 steps whose rates fall from step 750
(eleven minutes on one CPU core): FD (efficientnet_lite0) 56.8, the grey images themselves 89.4;
PSNR 24.01 dB and 25.50, since colours that may be wrong cost more than none. All 10,000 steps take
a GPU or TPU; not measured there yet.
Those figures with D are of simultaneous updates.
"""

from ml_collections import ConfigDict

from configs import inpainting_cifar10


def get_config() -> ConfigDict:
    """The network of inpainting on grey images."""
    config = inpainting_cifar10.get_config()
    config.input.kind = 'grey'
    return config

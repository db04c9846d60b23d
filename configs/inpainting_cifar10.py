"""Holes in CIFAR-10 filled by a context encoder (Pathak et al. 2016, arXiv:1604.07379).

    python main.py --config=configs/inpainting_cifar10.py --workdir=/tmp/inpaint
    python main.py --mode=inpaint --workdir=/tmp/inpaint
    ... --config.input.mask=free_form                       # or half, pixels; the default is centre

A U-Net that goes down to 4x4 pixels, so that all of the image says what the hole holds. On 500 test
images, which training does not see, after 1,500 steps whose rates fall from step 750 (ten minutes
on one CPU core): 15.97 dB in the hole, FD (efficientnet_lite0) 52.8; Telea's method 15.54 dB and
73.1. All 10,000 steps take a GPU or TPU; not measured there yet.
Those figures with D are of simultaneous updates.
"""

from ml_collections import ConfigDict

from configs import super_resolution_cifar10


def get_config() -> ConfigDict:
    """The loss of super-resolution, a deeper network."""
    config = super_resolution_cifar10.get_config()
    config.input.kind = 'masked'
    config.generator.update(
        features=(64, 128, 256), strides=(2, 2, 2, 1), kernel_sizes=(4, 4, 4, 3), norm='none'
    )
    return config

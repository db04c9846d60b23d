"""Inpainting of CIFAR-10 with a context encoder (Pathak et al. 2016, arXiv:1604.07379).

    python main.py --config=configs/inpainting_cifar10.py --workdir=/tmp/inpaint
    python main.py --mode=inpaint --workdir=/tmp/inpaint
    ... --config.input.mask=free_form                 # or half, pixels; the default is center

The generator is a U-Net with a bottleneck of 4x4 pixels, so that each output pixel depends on the
whole image. Results on 500 test images after 1,500 steps with learning rates that decay from step
750 (ten minutes on one CPU core, simultaneous updates): the PSNR in the masked region is 15.97 dB
and the FD (efficientnet_lite0) is 52.8, compared to 15.54 dB and 73.1 for Telea 2004. The full
10,000 steps are intended for a GPU or TPU, but have not been evaluated there.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import super_resolution_cifar10


def get_config() -> ConfigDict:
    """Return the config: the losses of super-resolution with a deeper U-Net."""
    config = super_resolution_cifar10.get_config()
    config.input.kind = 'masked'
    config.generator.update(
        features=(64, 128, 256), strides=(2, 2, 2, 1), kernel_sizes=(4, 4, 4, 3), norm='none'
    )
    return config

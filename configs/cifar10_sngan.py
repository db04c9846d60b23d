"""SNGAN with the DCGAN-like CNN of Miyato et al. 2018 (arXiv:1802.05957, table 3), hinge loss.

    python main.py --config=configs/cifar10_sngan.py --workdir=/tmp/sngan

The generator is that of `cifar10.py` with one more stage. The discriminator has seven convolutions
with spectral normalization and without BatchNorm. There is one update of D per step, as in most
reimplementations of this network; the paper uses five. Published FIDs: 17.8
(pytorch-gan-collections, 50,000 samples against the training split), 25.5 (the paper, with a
different protocol). The FD (efficientnet_lite0) is 14.4 after 28,950 steps in bfloat16, which take
60 s on one H200 (docs/gpu.md).
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: spectral normalization in D, hinge loss, batch size 64."""
    config = cifar10.get_config()
    config.batch_size = 64
    config.num_steps = 100_000
    config.loss.name = 'hinge'
    config.generator.features = (256, 128, 64)
    config.generator.strides = (2, 2, 2, 1)
    config.generator.kernel_sizes = (4, 4, 4, 3)
    config.discriminator.features = (64, 64, 128, 128, 256, 256, 512)
    config.discriminator.strides = (1, 2, 1, 2, 1, 2, 1)
    config.discriminator.kernel_sizes = (3, 4, 3, 4, 3, 4, 3)
    config.discriminator.leaky_slope = 0.1
    config.discriminator.norm = 'none'
    config.discriminator.use_bias = True
    config.discriminator.spectral_norm = True
    return config

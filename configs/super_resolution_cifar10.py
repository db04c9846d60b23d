"""Super-resolution of CIFAR-10 to 32x32, after SRGAN (Ledig et al. 2017, arXiv:1609.04802).

    python main.py --config=configs/super_resolution_cifar10.py --workdir=/tmp/x2
    python main.py --mode=super_resolve --workdir=/tmp/x2
    ... --config.input.scale=4                 # from 8x8 pixels; the default is 2, from 16x16
    ... --config.loss.adversarial_weight=0.0 --config.loss.feature_matching_weight=0.0 \
        --config.discriminator_steps=0                  # content loss only: best PSNR, but blurred

A U-Net predicts the residual of the bicubic image and is trained with content, adversarial and
feature matching losses. Results on 1,000 test images, with simultaneous updates on one CPU core
(bicubic interpolation in parentheses): for x2, the PSNR is 28.62 dB (26.16) after 959 steps with
the content loss only, and the FD (efficientnet_lite0) is 30.4 (62.4) after 2,000 steps with D and
learning rates that decay from step 1,000. For x4, the PSNR is 22.50 dB (21.24) after 1,500 steps,
and the FD is 47.9 (207.9). The full 10,000 steps are intended for a GPU or TPU, but have not been
evaluated there.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10


def get_config() -> ConfigDict:
    """Return the config: a U-Net, and the discriminator of `cifar10.py` at half its width."""
    config = cifar10.get_config()
    config.input.kind = 'low_resolution'
    config.batch_size = 32
    config.num_steps = 10_000
    config.generator.update(
        features=(64, 64, 64, 64), strides=(2, 1, 1, 1, 1), kernel_sizes=(4, 3, 3, 3, 3),
        norm='none', activation='leaky_relu', use_bias=True, weight_init='he_normal',
    )  # fmt: skip
    config.discriminator.width = 0.5
    config.discriminator.use_bias = True
    config.loss.content_weight, config.loss.content_norm = 1.0, 'l1'
    config.loss.adversarial_weight = 0.01
    config.loss.feature_matching_weight = 0.1
    config.augment.horizontal_flip = True
    config.ema.batch_stats = 'average'
    for optimizer in config.optimizer.values():
        optimizer.update(learning_rate=5e-4, b1=0.9, b2=0.99, schedule='linear')
        optimizer.update(decay_start=5_000, decay_end=10_000)
    config.evaluation.split = 'test'
    return config

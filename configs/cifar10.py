"""The DCGAN of Radford et al. 2015 (arXiv:1511.06434) at 32x32 pixels.

    python main.py --config=configs/cifar10.py --workdir=/tmp/run

The FD (efficientnet_lite0) of 10,000 samples is 18.9 after 37,800 steps in bfloat16, which take 60
seconds on one H200 (docs/gpu.md). The FD of 5,000 samples is 135.4 after 1,776 steps with
simultaneous updates, which take 30 minutes on 2 CPU cores (docs/recipes.md). Published FIDs of
50,000 samples against the training split: 42.4 (the authors of TTUR), 48.3 (StudioGAN).
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import default


def get_config() -> ConfigDict:
    """Return the config: BatchNorm, Adam(2e-4, b1=0.5), 50,000 steps with batch size 128."""
    config = default.get_config()
    config.dataset = 'cifar10'
    config.batch_size = 128
    config.num_steps = 50_000  # 128 epochs.

    # 4x4 -> 8x8 -> 16x16 -> 32x32, transposed 4x4 convolutions with stride 2.
    config.generator.base_size = 4
    config.generator.base_features = 512
    config.generator.features = (256, 128)
    config.generator.strides = (2, 2, 2)
    # 32x32 -> 16x16 -> 8x8 -> 4x4.
    config.discriminator.features = (128, 256, 512)
    config.discriminator.strides = (2, 2, 2)
    for network in (config.generator, config.discriminator):
        network.kernel_size = 4
        network.norm = 'batch'
        network.use_bias = False
        network.weight_init, network.weight_stddev = 'normal', 0.02

    config.loss.name = 'non_saturating'
    config.update_order = 'alternating'
    for optimizer in config.optimizer.values():
        optimizer.name, optimizer.learning_rate = 'adam', 2e-4
        optimizer.b1 = 0.5  # Training oscillated with 0.9 (Radford et al., section 4).
    return config

"""The DCGAN of Radford et al. 2015 (arXiv:1511.06434) at 32x32 pixels.

    python main.py --config=configs/cifar10.py --workdir=/tmp/run

Results: FD (efficientnet_lite0) 18.9 with 10,000 samples after 60 s on one H200 in bfloat16, 37,800
steps (docs/gpu.md); 135.4 with 5,000 samples after 30 minutes on 2 CPU cores with simultaneous
updates, 1,776 steps (docs/recipes.md). Published: FID 42.4 (the authors of TTUR), 48.3 (StudioGAN),
50k/train.
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

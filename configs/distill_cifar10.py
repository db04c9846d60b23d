"""Distillation of the generator of `cifar10_cpu.py` into one with a ninth of the parameters.

    python main.py --config=configs/cifar10_cpu.py --workdir=/tmp/cpu
    python main.py --config=configs/distill_cifar10.py --config.distill.teacher=/tmp/cpu \
        --workdir=/tmp/student

The student starts from those channels of the teacher that have the largest BatchNorm scales, and is
trained to map latents to the same images by an L1 loss on pixels and on features of the teacher's
discriminator (Aguinaldo et al. 2019, arXiv:1902.00159). The paper's adversarial loss made the
samples worse in short experiments, so D is not trained here (docs/recipes.md has the experiments
and the results of smaller students).
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10_cpu


def get_config() -> ConfigDict:
    """Return the config; `config.distill.teacher` is the folder of the teacher's run."""
    config = cifar10_cpu.get_config()
    config.distill.teacher = '/tmp/cpu'
    config.distill.init = 'pruned'
    config.generator.width = 0.25
    config.loss.adversarial_weight = 0.0
    config.loss.content_weight = 1.0
    config.loss.content_norm = 'l1'
    config.loss.feature_matching_weight = 1.0
    config.distill.discriminator = 'teacher'
    config.discriminator_steps = 0
    # Small generators need a larger learning rate (see docs/recipes.md).
    config.optimizer.generator.learning_rate = 4e-3
    config.num_steps = 8_000
    for optimizer in config.optimizer.values():
        optimizer.decay_start, optimizer.decay_end = 4_000, 8_000
    return config

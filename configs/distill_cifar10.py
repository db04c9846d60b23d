"""Distillation of the generator of `cifar10_cpu.py` into one with a ninth of the parameters.

    python main.py --config=configs/cifar10_cpu.py --workdir=/tmp/cpu
    python main.py --config=configs/distill_cifar10.py --config.distill.teacher=/tmp/cpu \
        --workdir=/tmp/student

The student is trained to map latents to the same images as the teacher, by losses on pixels and on
D's features, together with the adversarial loss (Aguinaldo et al. 2019, arXiv:1902.00159; Chang &
Lu 2020, arXiv:2009.13829). docs/recipes.md describes how to train smaller students.
"""

from ml_collections import ConfigDict

from dcgan_jax.configs import cifar10_cpu


def get_config() -> ConfigDict:
    """Return the config; `config.distill.teacher` is the folder of the teacher's run."""
    config = cifar10_cpu.get_config()
    config.distill.teacher = '/tmp/cpu'
    config.generator.width = 0.25
    config.loss.content_weight = 10.0
    config.loss.content_norm = 'l1'
    config.loss.feature_matching_weight = 1.0
    return config

"""Small networks for 8x8 images, and inputs."""

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax import config as config_lib
from dcgan_jax import models
from dcgan_jax.configs import cifar10

RNG = np.random.default_rng(0)


def tiny(conditional=False, **changes):
    """Return networks for 8x8 images, and their config."""
    config = cifar10.get_config()
    config.conv_impl, config.latent_dim, config.conditional = 'xla', 5, conditional
    config.generator.update(base_size=2, base_features=6, features=(8,), strides=(2, 2))
    config.discriminator.update(features=(6, 8), strides=(2, 2))
    for name, fields in changes.items():
        config[name].update(fields)
    config_lib.validate(config)
    return models.build(config, (8, 8, 3), num_classes=4), config


def images(count):
    return jnp.asarray(RNG.uniform(-1, 1, (count, 8, 8, 3)), jnp.float32)


def initial(module, *inputs):
    return module.init(jax.random.key(0), *inputs, train=False)


# Spectral normalization.


# Normalization.


# Conditional networks.

"""Optimizers by their optax name, with learning rate schedules over the run's steps."""

import inspect

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

NAMES = (
    *('adabelief', 'adagrad', 'adam', 'adamax', 'adamw', 'amsgrad', 'lamb', 'lion', 'nadam'),
    *('nadamw', 'novograd', 'radam', 'rmsprop', 'sgd', 'yogi'),
)
SCHEDULES = ('constant', 'linear', 'cosine')
_OPTIONS = ('b1', 'b2', 'eps', 'momentum', 'decay', 'weight_decay')


def create(config: ConfigDict, updates_per_step: int = 1) -> optax.GradientTransformation:
    """Create the optimizer of a network.

    The fields b1, b2, eps, momentum, decay and weight_decay are passed to the optax function if it
    has an argument of that name. Two definitions in optax differ from PyTorch's: 'rmsprop' adds eps
    inside the square root, and 'amsgrad' takes the maximum of the bias-corrected second moment,
    whereas PyTorch corrects the maximum.

    Args:
        config: `config.optimizer.generator` or `config.optimizer.discriminator`.
        updates_per_step: Updates of this network per step. Schedules are functions of the step.
    """
    rate = config.learning_rate
    if config.schedule != 'constant' or config.warmup_steps:
        rate = lambda count: learning_rate(count // updates_per_step, config)  # noqa: E731
    arguments = {name: config[name] for name in options(config.name)}
    optimizer = getattr(optax, config.name)(rate, **arguments)
    if config.clip_norm:
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return optimizer


def options(name: str) -> tuple[str, ...]:
    """Return the fields that the optimizer's function in optax has as arguments."""
    parameters = inspect.signature(getattr(optax, name)).parameters
    return tuple(option for option in _OPTIONS if option in parameters)


def learning_rate(step: jax.Array, config: ConfigDict) -> jax.Array:
    """Return the learning rate at a step.

    The rate increases linearly over `warmup_steps`, stays constant until step `decay_start`, and
    decays to the fraction `final_lr_ratio` of its value at step `decay_end`, linearly or as a
    cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).

    Args:
        step: Number of completed steps, int32 scalar.
        config: See `create`.
    """
    step = step.astype(jnp.float32)
    rate = jnp.float32(config.learning_rate)
    if config.warmup_steps:
        rate *= jnp.minimum((step + 1.0) / config.warmup_steps, 1.0)
    if config.schedule == 'constant':
        return rate
    progress = (step - config.decay_start) / max(config.decay_end - config.decay_start, 1)
    factor = 1.0 - jnp.clip(progress, 0.0, 1.0)
    if config.schedule == 'cosine':
        factor = 0.5 * (1.0 - jnp.cos(jnp.pi * factor))
    return rate * (config.final_lr_ratio + (1.0 - config.final_lr_ratio) * factor)

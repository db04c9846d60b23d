"""Optimizers by their optax name, with schedules that are functions of the run's step."""

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
    """The optimizer of one of `config.optimizer`'s two parts.

    An optimizer gets those of the fields b1, b2, eps, momentum, decay and weight_decay that its
    function in optax has.

    Two definitions of optax differ from PyTorch's: 'rmsprop' adds eps inside the square root, and
    'amsgrad' takes the maximum of the bias-corrected second moment, where PyTorch corrects the
    maximum.

    Args:
        config: `config.optimizer.generator` or `.discriminator`.
        updates_per_step: of this network; schedules count steps of the run.
    """
    rate = config.learning_rate
    if config.schedule != 'constant' or config.warmup_steps:
        rate = lambda count: learning_rate(count // updates_per_step, config)  # noqa: E731
    given = {name: config[name] for name in options(config.name)}
    optimizer = getattr(optax, config.name)(rate, **given)
    if config.clip_norm:
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return optimizer


def options(name: str) -> tuple[str, ...]:
    """Those of the fields that an optimizer's function in optax has."""
    known = inspect.signature(getattr(optax, name)).parameters
    return tuple(option for option in _OPTIONS if option in known)


def learning_rate(step: jax.Array, config: ConfigDict) -> jax.Array:
    """The learning rate at a step: warm-up, a plateau, then a fall.

    It rises linearly over `warmup_steps`, stays, and falls from step `decay_start` to step
    `decay_end` to `final_lr_ratio` of itself, along a line or half a cosine (Loshchilov &
    Hutter 2017, arXiv:1608.03983, eq. 5), and stays there.

    Args:
        step: int32 scalar, updates done before.
        config: as for `create`.
    """
    step = step.astype(jnp.float32)
    rate = jnp.float32(config.learning_rate)
    if config.warmup_steps:
        rate *= jnp.minimum((step + 1.0) / config.warmup_steps, 1.0)
    if config.schedule == 'constant':
        return rate
    fallen = (step - config.decay_start) / max(config.decay_end - config.decay_start, 1)
    left = 1.0 - jnp.clip(fallen, 0.0, 1.0)
    if config.schedule == 'cosine':
        left = 0.5 * (1.0 - jnp.cos(jnp.pi * left))
    return rate * (config.final_lr_ratio + (1.0 - config.final_lr_ratio) * left)

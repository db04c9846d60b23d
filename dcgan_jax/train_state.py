"""Everything that a step changes, in one tree: what a checkpoint holds is what training needs."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state
from ml_collections import ConfigDict

from dcgan_jax.keys import Role, role_key
from dcgan_jax.models import Networks


class NetworkState(train_state.TrainState):
    """A flax TrainState (step, params, optimiser state) with BatchNorm's running statistics.

    Attributes:
        batch_stats: the collection 'batch_stats', empty for a network without BatchNorm.
    """

    batch_stats: Any

    def apply_gradients(self, *, grads: Any, **changes: Any) -> 'NetworkState':
        """One step of the optimiser; `changes` replace other fields."""
        with jax.numpy_dtype_promotion('standard'):  # Adam's b1**count has a float and an int32.
            return super().apply_gradients(grads=grads, **changes)


class GANState(flax.struct.PyTreeNode):
    """The state of a run after `step` updates.

    Random numbers are no part of it: every key is a function of (config.seed, step).

    Attributes:
        step: int32 scalar, updates done; each is one update of D and one of G.
        generator: G's TrainState.
        discriminator: D's TrainState.
        ema_params: exponential moving average of G's parameters. BatchNorm statistics that belong
            to it are re-estimated when it is used, see `sampling.standing_statistics`.
    """

    step: jax.Array
    generator: NetworkState
    discriminator: NetworkState
    ema_params: Any


def create_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) from one of `config.optimizer`'s two parts."""
    return optax.adam(config.learning_rate, b1=config.b1, b2=config.b2, eps=config.eps)


def create(config: ConfigDict, networks: Networks, image_shape: tuple[int, int, int]) -> GANState:
    """The state at step 0, a function of `config.seed`; traceable, so `jax.eval_shape` works.

    Args:
        config: of the run.
        networks: from `models.build`.
        image_shape: (H, W, C).
    """
    generator_key, discriminator_key = jax.random.split(role_key(config.seed, Role.WEIGHTS))
    latents = jnp.zeros((1, config.latent_dim))
    images = jnp.zeros((1, *image_shape))
    generator = networks.generator.init(generator_key, latents, train=False)
    discriminator = networks.discriminator.init(discriminator_key, images, train=False)
    return GANState(
        step=jnp.zeros((), jnp.int32),
        generator=_network_state(networks.generator, generator, config.optimizer.generator),
        discriminator=_network_state(
            networks.discriminator, discriminator, config.optimizer.discriminator
        ),
        # A copy: the live parameters' buffers are donated to the step.
        ema_params=jax.tree.map(jnp.copy, generator['params']),
    )


def _network_state(module: flax.linen.Module, variables: Any, config: ConfigDict) -> NetworkState:
    return NetworkState.create(
        apply_fn=module.apply,
        params=variables['params'],
        batch_stats=variables.get('batch_stats', {}),
        tx=create_optimizer(config),
    )

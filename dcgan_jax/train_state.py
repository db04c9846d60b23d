"""Everything that a step changes, in one tree: what a checkpoint holds is what training needs."""

from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax.training import train_state
from ml_collections import ConfigDict

from dcgan_jax import optimizers
from dcgan_jax.data import captions, degradations
from dcgan_jax.models import Networks
from dcgan_jax.runtime import sharding
from dcgan_jax.runtime.prng import Purpose, purpose_key

NETWORKS = 'discriminator', 'generator'  # Fields of `GANState`, and prefixes of metrics.
# Collections beside the parameters. A forward pass updates them, but for the captions.
STATISTICS = ('batch_stats', 'spectral_stats', 'captions')


class NetworkState(train_state.TrainState):
    """A flax TrainState (step, params, optimizer state) with what forward passes update.

    Attributes:
        batch_stats: BatchNorm's running statistics; empty for a network without.
        spectral_stats: the vectors of spectral normalization; empty for a network without.
        captions: `table` float32 `[captions, size]`, see `data.captions`; empty without text.
    """

    batch_stats: Any
    spectral_stats: Any
    captions: Any

    @property
    def statistics(self) -> dict[str, Any]:
        """The collections by name."""
        return {name: getattr(self, name) for name in STATISTICS}

    def apply_gradients(self, *, grads: Any, **changes: Any) -> 'NetworkState':
        """One step of the optimizer; `changes` replace other fields."""
        with jax.numpy_dtype_promotion('standard'):  # Adam's b1**count has a float and an int32.
            return super().apply_gradients(grads=grads, **changes)


class GANState(flax.struct.PyTreeNode):
    """The state of a run after `step` updates.

    Random numbers are no part of it: every key is a function of (config.seed, step).

    Attributes:
        step: int32 scalar, updates done; each is one of G, and `config.discriminator_steps` of D.
        generator: G's TrainState.
        discriminator: D's TrainState.
        ema_params: exponential moving average of G's parameters.
        ema_batch_stats: that of G's running statistics, where `config.ema.batch_stats` is
            'average'; else empty, and statistics that belong to `ema_params` are re-estimated when
            they are used, see `sampling.standing_statistics`.
        augment_probability: float32 scalar where augmentation is adaptive; else empty.
    """

    step: jax.Array
    generator: NetworkState
    discriminator: NetworkState
    ema_params: Any
    ema_batch_stats: Any
    augment_probability: Any


def create(config: ConfigDict, networks: Networks, image_shape: tuple[int, int, int]) -> GANState:
    """The state at step 0, a function of `config.seed`; traceable, so `jax.eval_shape` works.

    Args:
        config: of the run.
        networks: from `models.build`.
        image_shape: (H, W, C).
    """
    generator_key, discriminator_key = jax.random.split(purpose_key(config.seed, Purpose.INIT))
    count = config.discriminator.pack
    images = jnp.zeros((count, *image_shape))
    given = degradations.sample_inputs(generator_key, config, images[:1])
    labels = jnp.zeros(count, jnp.int32)
    generator = networks.generator.init(generator_key, given, labels[:1], train=False)
    discriminator = networks.discriminator.init(discriminator_key, images, labels, train=False)
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731 (live buffers are donated)
    averaged = config.ema.batch_stats == 'average'
    adaptive = config.augment.ada_target > 0
    return GANState(
        step=jnp.zeros((), jnp.int32),
        generator=_network_state(
            networks.generator, generator, optimizers.create(config.optimizer.generator)
        ),
        discriminator=_network_state(
            networks.discriminator,
            discriminator,
            optimizers.create(config.optimizer.discriminator, max(config.discriminator_steps, 1)),
        ),
        ema_params=copy(generator['params']),
        ema_batch_stats=copy(generator.get('batch_stats', {})) if averaged else {},
        augment_probability=jnp.float32(0.0) if adaptive else {},
    )


def with_captions(
    state: GANState, like: GANState, config: ConfigDict, class_names: Sequence[str]
) -> GANState:
    """The state of step 0 with the vectors of its captions in both networks, where it has any.

    Args:
        state: of step 0.
        like: says where its arrays live.
        config: of the run.
        class_names: of its data set.

    Raises:
        UserError: the embedder of `config.text` is not installed.
    """
    if not captions.is_used(config):
        return state
    vectors = captions.embed(config, captions.class_captions(config, class_names))

    def with_captions(network: NetworkState, placed: NetworkState) -> NetworkState:
        table = sharding.place(vectors, placed.captions['table'].sharding)
        return network.replace(captions={'table': table})

    return state.replace(
        generator=with_captions(state.generator, like.generator),
        discriminator=with_captions(state.discriminator, like.discriminator),
    )


def _network_state(module: flax.linen.Module, variables: Any, optimizer: Any) -> NetworkState:
    return NetworkState.create(
        apply_fn=module.apply,
        params=variables['params'],
        **{name: variables.get(name, {}) for name in STATISTICS},
        tx=optimizer,
    )

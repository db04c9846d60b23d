"""Training state: all arrays that a step updates and that checkpoints contain."""

from collections.abc import Callable, Sequence
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
# Collections besides 'params'; forward passes update all of them except 'captions'.
STATISTICS = ('batch_stats', 'spectral_stats', 'captions')


class NetworkState(train_state.TrainState):
    """A Flax TrainState with the network's other collections.

    Attributes:
        batch_stats: Running statistics of BatchNorm; may be empty.
        spectral_stats: Singular vectors of spectral normalization; may be empty.
        captions: Caption embeddings at `condition/table`, float32 `[num_captions, size]`; empty
            without text conditioning.
    """

    batch_stats: Any
    spectral_stats: Any
    captions: Any

    @property
    def statistics(self) -> dict[str, Any]:
        """The collections of `STATISTICS` by name."""
        return {name: getattr(self, name) for name in STATISTICS}

    @property
    def variables(self) -> dict[str, Any]:
        """All collections of the network."""
        return {'params': self.params, **self.statistics}

    def apply_gradients(self, *, grads: Any, **changes: Any) -> 'NetworkState':
        """Apply an optimizer step; `changes` replace other fields."""
        with jax.numpy_dtype_promotion('standard'):  # For Adam's b1**count.
            return super().apply_gradients(grads=grads, **changes)


class GANState(flax.struct.PyTreeNode):
    """State of both networks after `step` steps.

    There is no random key, because every key is a function of (config.seed, step).

    Attributes:
        step: Number of completed steps, int32 scalar. A step is one update of G and
            `config.discriminator_steps` updates of D.
        generator: State of the generator.
        discriminator: State of the discriminator.
        ema_params: Exponential moving average of the generator's parameters.
        ema_batch_stats: Average of the generator's running statistics if `config.ema.batch_stats`
            is 'average'; otherwise empty, see `sampling.standing_statistics`.
        augment_probability: Adaptive augmentation probability (ADA), float32 scalar; empty without
            ADA.
    """

    step: jax.Array
    generator: NetworkState
    discriminator: NetworkState
    ema_params: Any
    ema_batch_stats: Any
    augment_probability: Any

    def __repr__(self) -> str:
        """Return a short description; notebooks print the value of a cell's last line."""
        return f'GANState(step={self.step})'


class Teacher(flax.struct.PyTreeNode):
    """Frozen generator for distillation.

    Attributes:
        variables: Parameters of the EMA generator and its other collections.
        apply_fn: `apply` of the generator.
    """

    variables: Any
    apply_fn: Callable[..., jax.Array] = flax.struct.field(pytree_node=False)

    def __call__(self, latents: jax.Array, labels: jax.Array | None) -> jax.Array:
        """Generate images in [-1, 1], float32 `[B, H, W, C]`, from latents `[B, latent_dim]`."""
        return self.apply_fn(self.variables, latents, labels, train=False)


def create(config: ConfigDict, networks: Networks, image_shape: tuple[int, int, int]) -> GANState:
    """Create the initial state of a run; can be traced, e.g. by `jax.eval_shape`.

    Args:
        config: The run's config.
        networks: Networks from `models.build`.
        image_shape: (H, W, C) of the images.
    """
    generator_key, discriminator_key = jax.random.split(purpose_key(config.seed, Purpose.INIT))
    count = config.discriminator.pack
    images = jnp.zeros((count, *image_shape))
    inputs = degradations.sample_inputs(generator_key, config, images[:1])
    labels = jnp.zeros(count, jnp.int32)
    generator = networks.generator.init(generator_key, inputs, labels[:1], train=False)
    discriminator = networks.discriminator.init(discriminator_key, images, labels, train=False)
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731 (The state is donated.)
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


def add_captions(
    state: GANState, abstract_state: GANState, config: ConfigDict, class_names: Sequence[str]
) -> GANState:
    """Add the embeddings of the captions to an initial state, if the run is conditioned on text.

    Args:
        state: The initial state.
        abstract_state: Abstract state with shardings.
        config: The run's config.
        class_names: Names of the data set's classes.

    Raises:
        UserError: If the embedder of `config.text` is not installed.
    """
    if not captions.is_used(config):
        return state
    embeddings = captions.embed(config, captions.class_captions(config, class_names))

    def add(network: NetworkState, abstract: NetworkState) -> NetworkState:
        table = sharding.place(embeddings, abstract.captions['condition']['table'].sharding)
        return network.replace(captions={'condition': {'table': table}})

    return state.replace(
        generator=add(state.generator, abstract_state.generator),
        discriminator=add(state.discriminator, abstract_state.discriminator),
    )


def _network_state(module: flax.linen.Module, variables: Any, optimizer: Any) -> NetworkState:
    return NetworkState.create(
        apply_fn=module.apply,
        params=variables['params'],
        **{name: variables.get(name, {}) for name in STATISTICS},
        tx=optimizer,
    )

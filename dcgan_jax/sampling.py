"""Sampling from the EMA generator."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dcgan_jax.data import degradations, images, input_pipeline
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.data.degradations import sample_latents
from dcgan_jax.data.image_source import Examples, ImageSource
from dcgan_jax.models import Generator, layers
from dcgan_jax.runtime import sharding
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.train_state import GANState

MAX_PIXELS = 2**16  # Largest number of pixels in a batch of input images on one device.
_POWER_ITERATIONS = 8  # Adapt the singular vectors of the current parameters to the EMA's.


def standing_statistics(
    generator: Generator,
    variables: Any,
    key: jax.Array,
    *,
    batches: int,
    batch_size: int,
    latent_dim: int,
    conditions: np.ndarray,
) -> Any:
    """Estimate the BatchNorm statistics for given parameters, e.g. an EMA.

    The running statistics of training are those of the current parameters and do not apply to an
    EMA. Standing statistics are the mean of the batch statistics over fresh latents and conditions
    (Brock et al. 2019, arXiv:1809.11096, section 4.1). As in the authors' code, the variance is the
    mean of the batch variances; the variance over all images would be about 5% larger for the
    default network.

    Args:
        generator: The generator.
        variables: The generator's collections except 'batch_stats'.
        key: Key of the latents.
        batches: Number of batches.
        batch_size: Number of latents per batch.
        latent_dim: Size of a latent.
        conditions: Classes or captions that the latents cycle through, int32; `[0]` if
            unconditional.

    Returns:
        The collection 'batch_stats'; empty for a generator without BatchNorm.
    """
    # With a momentum of 0, the updated running statistics are those of the batch.
    generator = generator.clone(norm=functools.partial(generator.norm, momentum=0.0))

    def batch_statistics(index: jax.Array, batch_stats: Any) -> Any:
        latents = sample_latents(jax.random.fold_in(key, index), batch_size, latent_dim)
        labels = jnp.asarray(conditions)[
            (index * batch_size + jnp.arange(batch_size)) % len(conditions)
        ]
        _, updated = generator.apply(
            {**variables, 'batch_stats': batch_stats},
            latents,
            labels,
            train=True,
            mutable=['batch_stats'],
        )
        return updated.get('batch_stats', {})

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(
            lambda: generator.init(
                key, jnp.zeros((1, latent_dim)), jnp.zeros(1, jnp.int32), train=False
            ).get('batch_stats', {})
        ),
    )
    if not zeros:
        return zeros

    def add(total: Any, index: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, batch_statistics(index, zeros)), None

    total, _ = jax.lax.scan(add, zeros, jnp.arange(batches))
    return jax.tree.map(lambda leaf: leaf / batches, total)


def generate(
    generator: Generator, variables: Any, latents: jax.Array, labels: jax.Array | None
) -> jax.Array:
    """Generate images, uint8 `[N, H, W, C]`, from latents `[N, latent_dim]` and labels `[N]`."""
    return images.to_uint8(generator.apply(variables, latents, labels, train=False))


def read_images(seed: int, count: int, source: ImageSource) -> np.ndarray:
    """Read `count` images in a random order that depends on `seed`, uint8 `[count, H, W, C]`."""
    return source.read(input_pipeline.batch_indices(seed, 0, count, len(source))[0]).images


def read_labeled_images(seed: int, count: int, source: ImageSource) -> Examples:
    """Read the same images as `read_images`, with labels."""
    source.require_labels()
    return source.read(input_pipeline.batch_indices(seed, 0, count, len(source))[0], labels=True)


def _vectorize(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return a jitted function of (root key, indices, ...) that maps `function(key, ...)`."""

    def apply(root: jax.Array, index: jax.Array, *arguments: jax.Array) -> jax.Array:
        return function(jax.random.fold_in(root, index), *arguments)

    def apply_batch(root: jax.Array, indices: jax.Array, *arguments: jax.Array) -> jax.Array:
        return jax.vmap(functools.partial(apply, root))(indices, *arguments)

    return jax.jit(apply_batch)


class Sampler:
    """Samples images from the EMA generator in fixed-size batches.

    Each image depends only on its own latent and label. Batches are sharded over all devices.

    Attributes:
        classes: Classes that the run was trained on, int32; empty if unconditional.
    """

    def __init__(self, generator: Generator, config: Any):
        """Initialize a sampler, which is compiled at the first call.

        Args:
            generator: The generator.
            config: The run's config.
        """
        self._conditioner = Conditioner.create(config, generator.num_conditions)
        conditions = self._conditioner.conditions
        self.classes = np.asarray(self._conditioner.classes, np.int32)
        mesh = sharding.create_mesh()
        self._num_devices = mesh.size
        self._config = config
        self._latents = _vectorize(lambda key: sample_latents(key, 1, config.latent_dim)[0])

        def sample_input(key: jax.Array, real: jax.Array) -> jax.Array:
            return degradations.sample_inputs(key, config, images.to_float(real)[None])[0]

        self._inputs = _vectorize(sample_input)
        self._key = purpose_key(config.seed, Purpose.STANDING_STATISTICS)
        averaged = config.ema.batch_stats == 'average'

        def variables(state: GANState, key: jax.Array) -> Any:
            collections = {
                'params': state.ema_params,
                # The stored singular vectors are those of the current parameters.
                'spectral_stats': layers.update_spectral_stats(
                    state.ema_params, state.generator.spectral_stats, _POWER_ITERATIONS
                ),
                'captions': state.generator.captions,
            }
            if averaged:
                return collections | {'batch_stats': state.ema_batch_stats}
            return collections | {
                'batch_stats': standing_statistics(
                    generator,
                    collections,
                    key,
                    batches=config.ema.standing_batches,
                    batch_size=config.batch_size,
                    latent_dim=config.latent_dim,
                    conditions=conditions,
                )
            }

        replicated, self._sharding = sharding.replicated(mesh), sharding.sharded(mesh)
        self._variables = jax.jit(variables, out_shardings=replicated)
        self._generate = jax.jit(
            functools.partial(generate, generator),
            in_shardings=(replicated, self._sharding, self._sharding),
            out_shardings=replicated,
        )

    def latents(self, seed: int, count: int) -> np.ndarray:
        """Sample latents, float32 `[count, latent_dim]`; each depends on (seed, index) only."""
        return np.asarray(self._latents(purpose_key(seed, Purpose.SAMPLES), np.arange(count)))

    def inputs(self, seed: int, count: int, source: ImageSource) -> np.ndarray:
        """Sample inputs of the generator; each depends on (seed, index) only.

        These are latents, or degraded images of `read_images(seed, count, source)`.
        """
        if not degradations.takes_images(self._config):
            return self.latents(seed, count)
        root, real = purpose_key(seed, Purpose.SAMPLES), read_images(seed, count, source)
        return np.asarray(self._inputs(root, np.arange(count), real))

    def variables(self, state: GANState) -> Any:
        """Return all collections of the EMA generator, replicated on every device."""
        return self._variables(state, self._key)

    def labels(self, count: int) -> np.ndarray:
        """Return `count` labels that cycle through the classes, int32; zeros if unconditional."""
        return np.resize(self.classes, count) if len(self.classes) else np.zeros(count, np.int32)

    def __call__(
        self,
        state: GANState,
        inputs: np.ndarray,
        labels: np.ndarray | None = None,
        prompts: np.ndarray | None = None,
    ) -> np.ndarray:
        """Generate images.

        Args:
            state: The run's state.
            inputs: Latents, float32 `[N, latent_dim]`, or degraded images `[N, H, W, C + 1]`.
            labels: Classes, int32 `[N]`; by default, they cycle through all classes. Images of the
                same class cycle through its captions.
            prompts: Embeddings, float32 `[P, size]`, that replace the run's captions; `labels` are
                then indices of prompts.

        Returns:
            Images, uint8 `[N, H, W, C]`.
        """
        labels = self.labels(len(inputs)) if labels is None else labels
        batches, count = [], len(inputs)
        with tqdm(total=count, desc='Sampling', unit='image', delay=3, disable=None) as bar:
            for batch in self.batches(state, inputs, labels, prompts):
                batches.append(batch)
                bar.update(len(batch))
        return np.concatenate(batches)

    def batches(
        self,
        state: GANState,
        latents: np.ndarray,
        labels: np.ndarray,
        prompts: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Generate images in batches; see `__call__`."""
        variables = self.variables(state)
        if prompts is not None:
            table = sharding.place(prompts, sharding.replicated(sharding.create_mesh()))
            variables = variables | {'captions': {'condition': {'table': table}}}
        else:
            labels = self._conditioner.cycle(labels)
        size = self._batch_size(latents)
        for start in range(0, len(latents), size):
            rows = slice(start, start + size)
            count = len(latents[rows])
            padding = (0, size - count)
            padded = np.pad(latents[rows], (padding, *[(0, 0)] * (latents.ndim - 1)))
            inputs = (padded, np.pad(labels[rows], padding))
            pixels = self._generate(
                variables, *(sharding.place(array, self._sharding) for array in inputs)
            )
            yield np.asarray(pixels)[:count]

    def _batch_size(self, latents: np.ndarray) -> int:
        """Return the size of a batch, a multiple of the number of devices.

        Latents use the training batch size. Input images may be larger than the training images, so
        their batches are limited to about `MAX_PIXELS` per device.
        """
        size = self._config.batch_size
        if latents.ndim > 2:
            pixels = latents.shape[1] * latents.shape[2]
            size = min(max(MAX_PIXELS // pixels, 1) * self._num_devices, len(latents))
        return -(-size // self._num_devices) * self._num_devices

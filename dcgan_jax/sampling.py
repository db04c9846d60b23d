"""Images from the generator's average: the right BatchNorm statistics, nothing from the batch."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dcgan_jax.data import captions, degradations, images, input_pipeline
from dcgan_jax.data.degradations import sample_latents
from dcgan_jax.data.sources import Examples, ImageSource
from dcgan_jax.models import Generator, layers
from dcgan_jax.runtime import sharding
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.train_state import GANState

_POWER_ITERATIONS = 8  # From the live parameters' vectors to the average's, which are close.


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
    """BatchNorm statistics that belong to the parameters, whatever they are (an EMA, say).

    The running statistics of training belong to parameters that have moved on. These are the mean
    of the batch statistics over fresh latents ("standing statistics", Brock et al. 2019,
    arXiv:1809.11096, section 4.1), and classes if there are any.

    As in the authors' code, the variance is the mean of the batches' variances. The variance of all
    images together would add that of the batches' means (about 5% on the default network).

    Args:
        generator: the module.
        variables: its collections but 'batch_stats'.
        key: for the latents.
        batches: how many batches are averaged.
        batch_size: latents a batch.
        latent_dim: size of a latent.
        conditions: classes (or captions) that latents have in turn, int32; `[0]` without.

    Returns:
        The collection 'batch_stats'; empty for a generator without BatchNorm.
    """
    # With momentum 0 the updated running statistics are the batch's own.
    own = generator.clone(norm_momentum=0.0)

    def batch_statistics(index: jax.Array, batch_stats: Any) -> Any:
        latents = sample_latents(jax.random.fold_in(key, index), batch_size, latent_dim)
        labels = jnp.asarray(conditions)[
            (index * batch_size + jnp.arange(batch_size)) % len(conditions)
        ]
        _, updated = own.apply(
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
            lambda: own.init(
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
    """Images uint8 `[N, H, W, C]` of latents `[N, latent_dim]`, and of classes int32 `[N]`."""
    return images.to_uint8(generator.apply(variables, latents, labels, train=False))


def read_images(seed: int, count: int, source: ImageSource) -> np.ndarray:
    """`count` images of a split in an order of `seed`, uint8 `[count, H, W, C]`."""
    return source.read(input_pipeline.batch_indices(seed, 0, count, len(source))[0]).images


def read_labeled_images(seed: int, count: int, source: ImageSource) -> Examples:
    """As `drawn`, with their classes."""
    source.require_labels()
    return source.read(input_pipeline.batch_indices(seed, 0, count, len(source))[0], labels=True)


def _occurrence(labels: np.ndarray) -> np.ndarray:
    """How often each of `labels` [N] came before it, in the same dtype."""
    seen = np.zeros_like(labels)
    for label in np.unique(labels):
        here = labels == label
        seen[here] = np.arange(np.sum(here))
    return seen


def _by_index(draw: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Compiles `draw(key, ...)` for many: a function of (root, indices, ...), a key each."""

    def one(root: jax.Array, index: jax.Array, *given: jax.Array) -> jax.Array:
        return draw(jax.random.fold_in(root, index), *given)

    def many(root: jax.Array, indices: jax.Array, *given: jax.Array) -> jax.Array:
        return jax.vmap(functools.partial(one, root))(indices, *given)

    return jax.jit(many)


class Sampler:
    """Draws images from a generator's average, in batches of one compiled size.

    An image is a function of its latent (and class) alone, whatever else is in its batch. Batches
    are divided among all devices; states are on all of them, or on one if there is but one.

    Attributes:
        classes: that it generates by, int32: those that the run learnt; empty where there are
            none.
    """

    def __init__(self, generator: Generator, config: Any):
        """Prepares (and compiles at first use) a sampler.

        Args:
            generator: the module.
            config: the run's; `ema`, `latent_dim`, `batch_size` and `seed` are read.
        """
        self._captions = captions.num_captions(config)
        conditions = captions.trained_conditions(config, generator.num_classes)
        self.classes = conditions[:: self._captions] // self._captions
        if not generator.num_classes:
            self.classes = self.classes[:0]
        mesh = sharding.create_mesh()
        self._batch_size = -(-config.batch_size // mesh.size) * mesh.size
        self._config = config
        self._latents = _by_index(lambda key: sample_latents(key, 1, config.latent_dim)[0])
        self._given = _by_index(
            lambda key, real: degradations.sample_inputs(key, config, images.to_float(real)[None])[
                0
            ]
        )
        self._key = purpose_key(config.seed, Purpose.STANDING_STATISTICS)
        averaged = config.ema.batch_stats == 'average'

        def variables(state: GANState, key: jax.Array) -> Any:
            known = {
                'params': state.ema_params,
                # The stored vectors belong to the live parameters.
                'spectral_stats': layers.update_spectral_stats(
                    state.ema_params, state.generator.spectral_stats, _POWER_ITERATIONS
                ),
                'captions': state.generator.captions,
            }
            if averaged:
                return known | {'batch_stats': state.ema_batch_stats}
            return known | {
                'batch_stats': standing_statistics(
                    generator,
                    known,
                    key,
                    batches=config.ema.standing_batches,
                    batch_size=config.batch_size,
                    latent_dim=config.latent_dim,
                    conditions=conditions,
                )
            }

        everywhere, self._divided = sharding.replicated(mesh), sharding.sharded(mesh)
        self._variables = jax.jit(variables, out_shardings=everywhere)
        self._generate = jax.jit(
            functools.partial(generate, generator),
            in_shardings=(everywhere, self._divided, self._divided),
            out_shardings=everywhere,
        )

    def latents(self, seed: int, count: int) -> np.ndarray:
        """Latents float32 `[count, latent_dim]`, a function of (seed, index) alone."""
        return np.asarray(self._latents(purpose_key(seed, Purpose.SAMPLES), np.arange(count)))

    def inputs(self, seed: int, count: int, source: ImageSource) -> np.ndarray:
        """What the generator makes `count` images of, a function of (seed, index) alone.

        Latents; or what `config.input` leaves of `read_images(seed, count, source)`.
        """
        if not degradations.takes_images(self._config):
            return self.latents(seed, count)
        root, real = purpose_key(seed, Purpose.SAMPLES), read_images(seed, count, source)
        return np.asarray(self._given(root, np.arange(count), real))

    def variables(self, state: GANState) -> Any:
        """All collections of the generator's average, on every device: what images depend on."""
        return self._variables(state, self._key)

    def labels(self, count: int) -> np.ndarray:
        """The classes in turn, int32 `[count]`; zeros without classes."""
        return np.resize(self.classes, count) if len(self.classes) else np.zeros(count, np.int32)

    def __call__(
        self,
        state: GANState,
        latents: np.ndarray,
        labels: np.ndarray | None = None,
        prompts: np.ndarray | None = None,
    ) -> np.ndarray:
        """Generates one image a latent (or other input).

        Args:
            state: of the run.
            latents: float32 `[N, latent_dim]`, or other inputs `[N, H, W, C + 1]`.
            labels: int32 `[N]`, of a generator with classes; in turn where None. Where it has
                captions, those of a class are taken in turn.
            prompts: float32 `[P, size]`, vectors that labels name in place of the run's captions.

        Returns:
            uint8 `[N, H, W, C]`.
        """
        labels = self.labels(len(latents)) if labels is None else labels
        pieces, count = [], len(latents)
        with tqdm(total=count, desc='Sampling', unit='image', delay=3, disable=None) as bar:
            for piece in self.batches(state, latents, labels, prompts):
                pieces.append(piece)
                bar.update(len(piece))
        return np.concatenate(pieces)

    def batches(
        self,
        state: GANState,
        latents: np.ndarray,
        labels: np.ndarray,
        prompts: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Yields what a call returns piece by piece, each of about `config.batch_size` images."""
        variables = self.variables(state)
        if prompts is not None:
            table = sharding.place(prompts, sharding.replicated(sharding.create_mesh()))
            variables = variables | {'captions': {'table': table}}
        elif self._captions > 1:
            labels = labels * self._captions + _occurrence(labels) % self._captions
        for start in range(0, len(latents), self._batch_size):
            piece = slice(start, start + self._batch_size)
            count = len(latents[piece])
            padding = (0, self._batch_size - count)
            padded = np.pad(latents[piece], (padding, *[(0, 0)] * (latents.ndim - 1)))
            inputs = (padded, np.pad(labels[piece], padding))
            pixels = self._generate(
                variables, *(sharding.place(array, self._divided) for array in inputs)
            )
            yield np.asarray(pixels)[:count]

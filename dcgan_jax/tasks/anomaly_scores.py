"""Scores of how little an image is like those that a GAN learnt; larger is stranger.

AnoGAN (Schlegl et al. 2017, arXiv:1703.05921) searches the latent of each image; f-AnoGAN (Schlegl
et al. 2019) has an encoder guess it. The others look at D alone: its logit, and where its features
of the image lie among those of training images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax.data import captions, images
from dcgan_jax.data.degradations import sample_latents
from dcgan_jax.models import Networks, encoder
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import latent_optimization
from dcgan_jax.tasks.discriminator_features import (
    DiscriminatorFeatures,
    logits,
    rotation_losses,
    unpacked,
)
from dcgan_jax.tasks.nearest_neighbors import nearest
from dcgan_jax.train_state import GANState

_SIDE = 2  # of D's pooled maps
_SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity
_FEATURE_SHARE = 0.1  # of D's features beside pixels in AnoGAN's distance (its lambda)
_BATCH = 32
_CALL = 20  # updates of the encoder a compiled call


class ScoringRun(NamedTuple):
    """A run, and the images that it calls normal.

    Attributes:
        config: of the run.
        networks: its.
        state: its.
        normal: training images, uint8 `[N, H, W, C]`.
        seed: of encoder and search.
    """

    config: ConfigDict
    networks: Networks
    state: GANState
    normal: np.ndarray
    seed: int


class AnomalyScores(NamedTuple):
    """Scores `[N]` by name; images as G has them, uint8 `[N, H, W, C]`, by the name of a score."""

    scores: dict[str, np.ndarray]
    made: dict[str, np.ndarray]


def score(run: ScoringRun, pixels: np.ndarray) -> AnomalyScores:
    """The scores of `config.anomaly.scores` of images uint8 `[N, H, W, C]`."""
    wanted = run.config.anomaly.scores
    scores, made = {}, {}
    if 'discriminator' in wanted:
        labels = np.full(len(pixels), _first(run), np.int32)
        scores['discriminator'] = -logits(run.networks, run.state, pixels, labels)
    if 'rotation' in wanted:
        scores['rotation'] = rotation_losses(run.networks, run.state, pixels)
    if {'mahalanobis', 'neighbours'} & set(wanted):
        see = DiscriminatorFeatures(run.networks, run.state, _SIDE)
        normal, seen = see(run.normal, 'Training images'), see(pixels, 'Images')
        if 'mahalanobis' in wanted:
            scores['mahalanobis'] = mahalanobis(normal, seen)
        if 'neighbours' in wanted:
            scores['neighbours'] = neighbours(normal, seen, run.config.anomaly.neighbours)
    for name, invert in (('encoder', encode), ('search', find)):
        if name in wanted:
            scores[name], made[name] = _of_inversion(run, pixels, invert(run))
    return AnomalyScores(scores, made)


def mahalanobis(normal: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Mahalanobis distances `[N]` of features `[N, D]` to the Gaussian of `normal` `[M, D]`.

    Its covariance is shrunk by a tenth towards a multiple of the identity, in float64.
    """
    mean = normal.mean(axis=0, dtype=np.float64)
    covariance = np.atleast_2d(np.cov(normal, rowvar=False, dtype=np.float64))
    size = len(covariance)
    flat = _SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    covariance = (1.0 - _SHRINKAGE) * covariance + flat
    apart = features - mean
    return np.sqrt(np.sum(apart * np.linalg.solve(covariance, apart.T).T, axis=1))


def neighbours(normal: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """Mean distances `[N]` to the `count` nearest of `normal`, features of equal deviation."""
    deviation = normal.std(axis=0)
    scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
    distances, _ = nearest(features * scale, normal * scale, count)
    return distances.mean(axis=1)


def _of_inversion(
    run: ScoringRun, pixels: np.ndarray, invert: Callable[[np.ndarray], jax.Array]
) -> tuple[np.ndarray, np.ndarray]:
    """(AnoGAN's distance of each image to G's image of its latent, that image)."""
    generate, features_of = _networks(run)

    @jax.jit
    def compare(part: jax.Array, latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        made = generate(latents)
        return distance(features_of, images.to_float(part), made), images.to_uint8(made)

    return map_batches(lambda part: compare(part, invert(part)), _BATCH, 'Scoring', pixels)


def distance(
    features_of: Callable[[jax.Array], jax.Array], real: jax.Array, made: jax.Array
) -> jax.Array:
    """0.9 mean |x - G(z)| + 0.1 mean |f(x) - f(G(z))| `[N]` (Schlegl et al. 2017, eq. 5).

    Also the score of the encoder's latents. f-AnoGAN's authors score those by squared differences;
    here they only train the encoder.
    """
    pixels = jnp.mean(jnp.abs(real - made), axis=(1, 2, 3))
    features = jnp.mean(jnp.abs(features_of(real) - features_of(made)), axis=1)
    return (1.0 - _FEATURE_SHARE) * pixels + _FEATURE_SHARE * features


def find(run: ScoringRun) -> Callable[[np.ndarray], jax.Array]:
    """AnoGAN: the latents `[N, d]` whose images are nearest, by `config.search`."""
    generate, features_of = _networks(run)
    fields = run.config.search
    key = purpose_key(run.seed, Purpose.LATENT_OPTIMIZATION)

    @jax.jit
    def latents(pixels: jax.Array) -> jax.Array:
        real = jnp.repeat(images.to_float(pixels), fields.restarts, axis=0)
        # The same for all images, so that each score is a function of its image alone.
        start = jnp.tile(
            sample_latents(key, fields.restarts, run.config.latent_dim), (len(pixels), 1)
        )
        found, losses = latent_optimization.minimize(
            lambda z: distance(features_of, real, generate(z)),
            start,
            fields.steps,
            fields.learning_rate,
        )
        best = jnp.argmin(losses.reshape(len(pixels), fields.restarts), axis=1)
        found = found.reshape(len(pixels), fields.restarts, -1)
        return jnp.take_along_axis(found, best[:, None, None], axis=1)[:, 0]

    return latents


def encode(run: ScoringRun) -> Callable[[np.ndarray], jax.Array]:
    """f-AnoGAN: an encoder, trained on the normal images so that G makes them again."""
    generate, features_of = _networks(run)
    fields = run.config.anomaly
    module = encoder.Encoder(**encoder.fields(run.config))
    init_key, key = jax.random.split(purpose_key(run.seed, Purpose.LATENT_OPTIMIZATION))
    params = module.init(init_key, jnp.zeros((1, *run.normal.shape[1:])))
    adam = optax.adam(fields.encoder_learning_rate)
    normal = jnp.asarray(run.normal)

    def loss(params: Any, real: jax.Array) -> jax.Array:
        made = generate(module.apply(params, real))
        features = jnp.mean(jnp.square(features_of(real) - features_of(made)))
        return jnp.mean(jnp.square(real - made)) + features  # izi_f, its kappa being 1

    @jax.jit
    def update(carry: Any, first: jax.Array, end: jax.Array) -> Any:
        def once(step: jax.Array, carry: Any) -> Any:
            params, state = carry
            chosen = jax.random.randint(jax.random.fold_in(key, step), (_BATCH,), 0, len(normal))
            gradient = jax.grad(loss)(params, images.to_float(jnp.take(normal, chosen, axis=0)))
            with jax.numpy_dtype_promotion('standard'):  # Adam's b1**count.
                change, state = adam.update(gradient, state)
            return optax.apply_updates(params, change), state

        return jax.lax.fori_loop(first, end, once, carry)

    carry = params, adam.init(params)
    with tqdm(total=fields.encoder_steps, desc='Encoder', unit='step', disable=None) as bar:
        for step in range(0, fields.encoder_steps, _CALL):
            end = min(step + _CALL, fields.encoder_steps)
            carry = update(carry, jnp.int32(step), jnp.int32(end))
            bar.update(end - step)
    params = carry[0]
    return jax.jit(lambda pixels: module.apply(params, images.to_float(pixels)))


def _networks(
    run: ScoringRun,
) -> tuple[Callable[[jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]:
    """(latents to images in [-1, 1], images to the features of D's last stage `[N, D]`)."""
    networks, config = run.networks, run.config
    variables = Sampler(networks.generator, config).variables(run.state)
    discriminator = unpacked(networks.discriminator)
    trained = run.state.discriminator
    seen_by = {'params': trained.params, **trained.statistics}

    def generate(latents: jax.Array) -> jax.Array:
        labels = jnp.full(len(latents), _first(run), jnp.int32)
        return networks.generator.apply(variables, latents, labels, train=False)

    def features_of(real: jax.Array) -> jax.Array:
        shown = jnp.repeat(real, discriminator.pack, axis=0)
        labels = jnp.zeros(len(shown), jnp.int32)  # Maps don't depend on them.
        _, seen = discriminator.apply(
            seen_by, shown, labels, train=False, mutable=['intermediates']
        )
        stages = seen['intermediates']
        (last,) = stages[f'stage_{len(stages) - 1}']
        return last.reshape(len(real), -1).astype(jnp.float32)

    return generate, features_of


def _first(run: ScoringRun) -> int:
    """The class (or caption) that G is asked for, and D judges by: the first that was learnt."""
    return int(captions.trained_conditions(run.config, run.networks.generator.num_classes)[0])

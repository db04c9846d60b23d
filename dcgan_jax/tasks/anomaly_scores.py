"""Anomaly scores of images with respect to a trained GAN; larger is more anomalous.

AnoGAN (Schlegl et al. 2017, arXiv:1703.05921) optimizes the latent of each image; f-AnoGAN
(Schlegl et al. 2019) predicts it with an encoder. The other scores use only the discriminator: its
logit, its rotation prediction, and the distance of its features to those of training images.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax.data import images
from dcgan_jax.data.degradations import sample_latents
from dcgan_jax.models import Networks, encoder
from dcgan_jax.runtime.batching import map_batches
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import latent_optimization
from dcgan_jax.tasks.discriminator_features import (
    DiscriminatorFeatures,
    feature_maps,
    logits,
    per_image_discriminator,
    rotation_losses,
)
from dcgan_jax.tasks.nearest_neighbors import nearest
from dcgan_jax.train_state import GANState

# Scores for which a conditional network needs a condition; the first one is used.
CONDITIONAL_SCORES = ('discriminator', 'encoder', 'latent_optimization')

_SIDE = 2  # Size of the pooled feature maps.
_SHRINKAGE = 0.1  # Shrinkage of the covariance toward a multiple of the identity.
_FEATURE_WEIGHT = 0.1  # Lambda of AnoGAN's distance.
_BATCH_SIZE = 32
_STEPS_PER_CALL = 20  # Encoder updates in one compiled call.


class ScoringRun(NamedTuple):
    """A trained GAN and the normal images to which others are compared.

    Attributes:
        config: The run's config.
        networks: The run's networks.
        state: The run's state.
        normal: Training images, uint8 `[M, H, W, C]`.
        seed: Seed of the encoder and of the initial latents.
    """

    config: ConfigDict
    networks: Networks
    state: GANState
    normal: np.ndarray
    seed: int


class AnomalyScores(NamedTuple):
    """Anomaly scores of images.

    Attributes:
        scores: Scores, float `[N]`, by name.
        reconstructions: Reconstructions by the generator, uint8 `[N, H, W, C]`, by name of the
            score; empty for scores without reconstructions.
    """

    scores: dict[str, np.ndarray]
    reconstructions: dict[str, np.ndarray]


def check_num_images(config: ConfigDict, count: int) -> None:
    """Raise `UserError` if a score in `config.anomaly.scores` needs more than `count` images.

    Args:
        config: The run's config.
        count: Number of normal images.
    """
    needed = {'mahalanobis': 2, 'neighbors': config.anomaly.num_neighbors}
    for name, minimum in needed.items():
        if name in config.anomaly.scores and count < minimum:
            change = ' or decrease config.anomaly.num_neighbors' if name == 'neighbors' else ''
            raise UserError(
                f'config.anomaly.scores: {name!r} needs at least {minimum} training images, but '
                f'there are {count}: remove it{change}'
            )


def score(run: ScoringRun, pixels: np.ndarray) -> AnomalyScores:
    """Compute the scores in `config.anomaly.scores` of images, uint8 `[N, H, W, C]`."""
    names = run.config.anomaly.scores
    scores, reconstructions = {}, {}
    if 'discriminator' in names:
        scores['discriminator'] = discriminator_scores(run, pixels)
    if 'rotation' in names:
        scores['rotation'] = rotation_losses(run.networks, run.state, pixels)
    if {'mahalanobis', 'neighbors'} & set(names):
        extract = DiscriminatorFeatures(run.networks, run.state, _SIDE)
        normal, features = extract(run.normal, 'Training images'), extract(pixels, 'Images')
        if 'mahalanobis' in names:
            scores['mahalanobis'] = mahalanobis_distances(normal, features)
        if 'neighbors' in names:
            scores['neighbors'] = neighbor_distances(
                normal, features, run.config.anomaly.num_neighbors
            )
    for name, create_encoder in (
        ('encoder', train_encoder),
        ('latent_optimization', latent_optimizer),
    ):
        if name in names:
            reconstruct = reconstructor(run, create_encoder(run))
            scores[name], reconstructions[name] = reconstruct(pixels)
    return AnomalyScores(scores, reconstructions)


def discriminator_scores(run: ScoringRun, pixels: np.ndarray) -> np.ndarray:
    """Return the negative logits, float32 `[N]`, of images, uint8 `[N, H, W, C]`."""
    labels = np.full(len(pixels), run.networks.conditioner.default, np.int32)
    return -logits(run.networks, run.state, pixels, labels)


def mahalanobis_distances(normal: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the Mahalanobis distance of each feature vector to those of normal images, `[N]`.

    The covariance is computed in float64, with shrinkage toward a multiple of the identity.

    Args:
        normal: Features of normal images, `[M, D]`.
        features: Features of the images, `[N, D]`.
    """
    mean = normal.mean(axis=0, dtype=np.float64)
    covariance = np.atleast_2d(np.cov(normal, rowvar=False, dtype=np.float64))
    size = len(covariance)
    target = _SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    covariance = (1.0 - _SHRINKAGE) * covariance + target
    difference = features - mean
    distances = np.sum(difference * np.linalg.solve(covariance, difference.T).T, axis=1)
    return np.sqrt(distances)


def neighbor_distances(normal: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """Return the mean distance to the `count` nearest neighbors in `normal`, `[N]`.

    Features are first scaled to unit standard deviation in `normal`.
    """
    deviation = normal.std(axis=0)
    scale = 1.0 / np.where(deviation > 0, deviation, 1.0)
    distances, _ = nearest(features * scale, normal * scale, count)
    return distances.mean(axis=1)


def reconstructor(
    run: ScoringRun, encode: Callable[[np.ndarray], jax.Array]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function from images to AnoGAN's distances and reconstructions.

    Args:
        run: The run; its normal images are not used.
        encode: Function from images, uint8 `[N, H, W, C]`, to latents `[N, d]`.

    Returns:
        Function from images, uint8 `[N, H, W, C]`, to their distances to the reconstructions,
        float32 `[N]`, and the reconstructions.
    """
    generate, features_of = _networks(run)

    @jax.jit
    def compare(batch: jax.Array, latents: jax.Array) -> tuple[jax.Array, jax.Array]:
        fake = generate(latents)
        return distance(features_of, images.to_float(batch), fake), images.to_uint8(fake)

    def reconstruct(batch: np.ndarray) -> tuple[jax.Array, jax.Array]:
        return compare(batch, encode(batch))

    return functools.partial(map_batches, reconstruct, _BATCH_SIZE, 'Scoring')


def distance(
    features_of: Callable[[jax.Array], jax.Array], real: jax.Array, fake: jax.Array
) -> jax.Array:
    """Compute 0.9 mean |x - G(z)| + 0.1 mean |f(x) - f(G(z))|, `[N]` (Schlegl et al. 2017, eq. 5).

    The same distance is used for latents of the encoder, whereas the authors of f-AnoGAN use
    squared differences.
    """
    pixels = jnp.mean(jnp.abs(real - fake), axis=(1, 2, 3))
    features = jnp.mean(jnp.abs(features_of(real) - features_of(fake)), axis=1)
    return (1.0 - _FEATURE_WEIGHT) * pixels + _FEATURE_WEIGHT * features


def latent_optimizer(run: ScoringRun) -> Callable[[np.ndarray], jax.Array]:
    """Return a function from images to optimized latents `[N, d]` (AnoGAN)."""
    generate, features_of = _networks(run)
    fields = run.config.latent_optimization
    key = purpose_key(run.seed, Purpose.LATENT_OPTIMIZATION)

    @jax.jit
    def encode(pixels: jax.Array) -> jax.Array:
        real = jnp.repeat(images.to_float(pixels), fields.restarts, axis=0)
        # All images have the same initial latents, so that a score does not depend on other images.
        start = jnp.tile(
            sample_latents(key, fields.restarts, run.config.latent_dim), (len(pixels), 1)
        )
        latents, losses = latent_optimization.minimize(
            lambda z: distance(features_of, real, generate(z)),
            start,
            fields.steps,
            fields.learning_rate,
        )
        return latent_optimization.select_best(latents, losses, fields.restarts)

    return encode


def train_encoder(run: ScoringRun) -> Callable[[np.ndarray], jax.Array]:
    """Train an encoder to reconstruct the normal images and return it as a function (f-AnoGAN)."""
    generate, features_of = _networks(run)
    fields = run.config.anomaly
    module = encoder.Encoder(**encoder.fields(run.config))
    init_key, key = jax.random.split(purpose_key(run.seed, Purpose.LATENT_OPTIMIZATION))
    params = module.init(init_key, jnp.zeros((1, *run.normal.shape[1:])))
    adam = optax.adam(fields.encoder_learning_rate)
    normal = jnp.asarray(run.normal)

    def loss(params: Any, real: jax.Array) -> jax.Array:
        fake = generate(module.apply(params, real))
        features = jnp.mean(jnp.square(features_of(real) - features_of(fake)))
        return jnp.mean(jnp.square(real - fake)) + features  # izi_f with kappa = 1.

    @jax.jit
    def update(carry: Any, first: jax.Array, end: jax.Array) -> Any:
        def body(step: jax.Array, carry: Any) -> Any:
            params, state = carry
            indices = jax.random.randint(
                jax.random.fold_in(key, step), (_BATCH_SIZE,), 0, len(normal)
            )
            grads = jax.grad(loss)(params, images.to_float(jnp.take(normal, indices, axis=0)))
            with jax.numpy_dtype_promotion('standard'):  # For Adam's b1**count.
                updates, state = adam.update(grads, state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(first, end, body, carry)

    carry = params, adam.init(params)
    with tqdm(total=fields.encoder_steps, desc='Encoder', unit='step', disable=None) as bar:
        for step in range(0, fields.encoder_steps, _STEPS_PER_CALL):
            end = min(step + _STEPS_PER_CALL, fields.encoder_steps)
            carry = update(carry, jnp.int32(step), jnp.int32(end))
            bar.update(end - step)
    params = carry[0]
    return jax.jit(lambda pixels: module.apply(params, images.to_float(pixels)))


def _networks(
    run: ScoringRun,
) -> tuple[Callable[[jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]:
    """Return functions from latents to G's images in [-1, 1], and from images to D's features.

    The features are the last feature map, flattened to `[N, D]`.
    """
    networks, config = run.networks, run.config
    variables = Sampler(networks.generator, config).variables(run.state)
    discriminator = per_image_discriminator(networks.discriminator)
    discriminator_variables = run.state.discriminator.variables

    def generate(latents: jax.Array) -> jax.Array:
        labels = jnp.full(len(latents), run.networks.conditioner.default, jnp.int32)
        return networks.generator.apply(variables, latents, labels, train=False)

    def features_of(real: jax.Array) -> jax.Array:
        last = feature_maps(discriminator, discriminator_variables, real)[-1]
        return last.reshape(len(real), -1)

    return generate, features_of

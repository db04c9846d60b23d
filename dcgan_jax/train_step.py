"""The adversarial update: pure functions of (state, images, key)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dcgan_jax.losses import LOSSES
from dcgan_jax.train_state import GANState, NetworkState

Metrics = dict[str, jax.Array]

# Streams of random numbers within a step; folded into the step's key.
_LATENTS, _FRESH_LATENTS, _DROPOUT_REAL, _DROPOUT_FAKE, _DROPOUT_GENERATOR = range(5)


def train_step(
    state: GANState, real: jax.Array, key: jax.Array, config: ConfigDict
) -> tuple[GANState, Metrics]:
    """One update of D, then one of G, then of the EMA.

    Real and fake batches go through D separately, so that its BatchNorm sees each alone. With
    `config.update` 'alternating' G learns from the D just updated (Goodfellow et al. 2014,
    algorithm 1), with 'simultaneous' from the D before. G's forward pass serves both updates unless
    `config.fresh_latents` asks for other latents in G's.

    Args:
        state: before the step.
        real: images `[B, H, W, C]`, float32 in [-1, 1].
        key: of this step.
        config: of the run.

    Returns:
        The state after the step, and float32 scalars: both losses, mean D(x) and D(G(z)) as D's
        update saw them, the norms of both gradients and of both networks' new parameters.
    """
    batch_size = real.shape[0]
    fake, generator_vjp, generator_stats = _generate(
        state.generator, sample_latents(_stream(key, _LATENTS), batch_size, config.latent_dim)
    )
    discriminator, discriminator_grads, metrics = _update_discriminator(
        state.discriminator, real, fake, key, config
    )

    if config.fresh_latents:
        latents = sample_latents(_stream(key, _FRESH_LATENTS), batch_size, config.latent_dim)
        fake, generator_vjp, generator_stats = _generate(
            state.generator.replace(batch_stats=generator_stats), latents
        )
    alternating = config.update == 'alternating'
    judge = discriminator if alternating else state.discriminator
    # 'simultaneous' is one forward pass of D for both updates, unless latents are fresh.
    dropout = _stream(key, _DROPOUT_GENERATOR if alternating else _DROPOUT_FAKE)

    def generator_loss(images: jax.Array) -> jax.Array:
        logits, _ = _judge(judge, judge.params, judge.batch_stats, images, dropout)
        return LOSSES[config.loss.name].generator(logits)

    loss, images_grad = jax.value_and_grad(generator_loss)(fake)
    (generator_grads,) = generator_vjp(images_grad)
    generator = state.generator.apply_gradients(grads=generator_grads, batch_stats=generator_stats)

    step = state.step + 1
    decay = ema_decay(step, batch_size, config.ema)
    metrics |= {
        'generator/loss': loss,
        'generator/gradient_norm': optax.tree.norm(generator_grads),
        'discriminator/gradient_norm': optax.tree.norm(discriminator_grads),
        # They say that the state after the step, which may be saved, is finite.
        'generator/parameter_norm': optax.tree.norm(generator.params),
        'discriminator/parameter_norm': optax.tree.norm(discriminator.params),
    }
    return GANState(
        step=step,
        generator=generator,
        discriminator=discriminator,
        ema_params=optax.incremental_update(generator.params, state.ema_params, 1.0 - decay),
    ), metrics


def sample_latents(key: jax.Array, count: int, latent_dim: int) -> jax.Array:
    """Latents z ~ N(0, I), float32 `[count, latent_dim]`."""
    return jax.random.normal(key, (count, latent_dim))


def ema_decay(step: jax.Array, batch_size: int, config: ConfigDict) -> jax.Array:
    """Share of the old average kept at `step`: 0.5 ** (batch / halflife), both in images.

    The halflife is `config.halflife_images`, but no more than `config.rampup_ratio` of the images
    seen so far, so that an early average forgets the initial weights (Karras et al. 2022,
    arXiv:2206.00364, the authors' training loop). A halflife of 0 keeps nothing: the average is the
    live generator.

    Args:
        step: updates done, this one included; at least 1.
        batch_size: images an update.
        config: `config.ema`.

    Returns:
        A float32 scalar in [0, 1).
    """
    seen = step.astype(jnp.float32) * batch_size
    halflife = jnp.minimum(config.halflife_images, seen * config.rampup_ratio)
    return jnp.exp2(-batch_size / jnp.maximum(halflife, 1e-8))


def _generate(network: NetworkState, latents: jax.Array) -> tuple[jax.Array, Any, Any]:
    """(fake images, function from their gradient to the parameters', updated batch statistics)."""

    def forward(params: Any) -> tuple[jax.Array, Any]:
        variables = {'params': params, 'batch_stats': network.batch_stats}
        images, updated = network.apply_fn(variables, latents, train=True, mutable=['batch_stats'])
        return images, updated.get('batch_stats', {})

    return jax.vjp(forward, network.params, has_aux=True)


def _judge(
    network: NetworkState, params: Any, batch_stats: Any, images: jax.Array, dropout: jax.Array
) -> tuple[jax.Array, Any]:
    """(logits, updated batch statistics) of D in training mode."""
    logits, updated = network.apply_fn(
        {'params': params, 'batch_stats': batch_stats},
        images,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': dropout},
    )
    return logits, updated.get('batch_stats', {})


def _update_discriminator(
    network: NetworkState, real: jax.Array, fake: jax.Array, key: jax.Array, config: ConfigDict
) -> tuple[NetworkState, Any, Metrics]:
    """(D after its update, the gradients, metrics). `fake` is constant here: nothing leaks to G."""

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array]]:
        real_logits, batch_stats = _judge(
            network, params, network.batch_stats, real, _stream(key, _DROPOUT_REAL)
        )
        fake_logits, batch_stats = _judge(
            network, params, batch_stats, fake, _stream(key, _DROPOUT_FAKE)
        )
        loss = LOSSES[config.loss.name].discriminator(real_logits, fake_logits)
        return loss, (batch_stats, real_logits, fake_logits)

    (loss, (batch_stats, real_logits, fake_logits)), grads = jax.value_and_grad(
        loss_fn, has_aux=True
    )(network.params)
    metrics = {
        'discriminator/loss': loss,
        'discriminator/real': jnp.mean(jax.nn.sigmoid(real_logits)),
        'discriminator/fake': jnp.mean(jax.nn.sigmoid(fake_logits)),
    }
    return network.apply_gradients(grads=grads, batch_stats=batch_stats), grads, metrics


def _stream(key: jax.Array, stream: int) -> jax.Array:
    return jax.random.fold_in(key, stream)

"""Training step of a GAN, as pure functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dcgan_jax import augmentation, gradient_penalties, losses
from dcgan_jax.step_context import Generate, RngStream, StepContext, Vjp
from dcgan_jax.train_state import GANState, NetworkState

Metrics = dict[str, jax.Array]


class _LastUpdate(NamedTuple):
    """Result of D's updates, and what the update of G reuses from the last of them.

    Attributes:
        generator: G with the statistics of its forward passes.
        discriminator: D after the update.
        fixed_discriminator: D whose parameters and statistics the update of G uses.
        context: Inputs of the update.
        real: Real images of the update, `[B, H, W, C]`.
        fake: Fakes of the update, `[B, H, W, C]`.
        generator_vjp: VJP function of the fakes for G's parameters.
        real_logits: Logits of the real images, `[B, 1]`; None if D is not updated.
        metrics: Metrics of the update.
    """

    generator: NetworkState
    discriminator: NetworkState
    fixed_discriminator: NetworkState
    context: StepContext
    real: jax.Array
    fake: jax.Array
    generator_vjp: Vjp
    real_logits: jax.Array | None
    metrics: Metrics


def train_step(
    state: GANState,
    real: jax.Array,
    labels: jax.Array | None,
    key: jax.Array,
    config: ConfigDict,
    teacher: Generate | None = None,
) -> tuple[GANState, Metrics]:
    """Update D `config.discriminator_steps` times, then G once, then the EMA.

    Real images and fakes pass through D separately, each with its own BatchNorm statistics. In
    the feature matching loss, targets and fakes share one batch. With
    `config.update_order='alternating'`, G's gradients are computed with the updated D (Goodfellow
    et al. 2014, algorithm 1); with 'simultaneous', they are computed with D before its update. Both
    updates use the same forward pass of G, unless `config.resample_latents` is set. Fakes have the
    classes of the real images of the batch.

    Args:
        state: The state before the step.
        real: Images `[N, H, W, C]`, float32 in [-1, 1], with N = `input_pipeline.images_per_step`.
        labels: Classes of the images, int32 `[N]`; None if unconditional.
        key: PRNG key of the step.
        config: The run's config.
        teacher: Generator whose images are the targets of G, see `train_state.Teacher`.

    Returns:
        The state after the step, and metrics, float32 scalars: the loss, gradient norm, parameter
        norm and, with BatchNorm, the norm of the running statistics of each network;
        'discriminator/real' and 'discriminator/fake', the mean of the logits (of their sigmoids for
        `config.loss.name='non_saturating'`) in D's last update; 'discriminator/penalty', the
        weighted penalty times `config.penalty.interval`, averaged over the updates of D that
        include it (0 if none does). D's loss excludes the penalty; its gradient norm includes it.
        Gradient norms are computed before clipping. There are further metrics for further loss
        terms and for ADA.
    """
    last = _discriminator_updates(state, real, labels, key, config, teacher)
    generator, metrics = _update_generator(last)

    step = state.step + 1
    metrics |= last.metrics
    for name, network in (('generator', generator), ('discriminator', last.discriminator)):
        # `nonfinite` checks the metrics, so these norms reveal NaN and infinity in the networks.
        metrics[f'{name}/parameter_norm'] = optax.tree.norm(network.params)
        if network.batch_stats:
            metrics[f'{name}/batch_stats_norm'] = optax.tree.norm(network.batch_stats)
    probability = state.augment_probability
    if config.augment.ada_target:
        metrics['augment/probability'] = probability
        probability = augmentation.adapt(probability, last.real_logits, len(real), config.augment)
    decay = ema_decay(step, len(last.real), config.ema)
    return GANState(
        step=step,
        generator=generator,
        discriminator=last.discriminator,
        ema_params=optax.incremental_update(generator.params, state.ema_params, 1.0 - decay),
        ema_batch_stats=optax.incremental_update(
            generator.batch_stats, state.ema_batch_stats, 1.0 - decay
        )
        if state.ema_batch_stats
        else {},
        augment_probability=probability,
    ), metrics


def ema_decay(step: jax.Array, batch_size: int, config: ConfigDict) -> jax.Array:
    """Return the decay of the EMA, 0.5 ** (batch_size / halflife), with the halflife in images.

    The halflife is `config.halflife_images`, but at most the fraction `config.rampup_ratio` of the
    images seen so far, so that the initial weights are forgotten early (Karras et al. 2022,
    arXiv:2206.00364, the authors' training loop). With a halflife of 0, the decay is 0.

    Args:
        step: Number of steps including this one, at least 1.
        batch_size: Images per step.
        config: `config.ema`.

    Returns:
        A float32 scalar in [0, 1).
    """
    seen = step.astype(jnp.float32) * batch_size
    halflife = jnp.minimum(config.halflife_images, seen * config.rampup_ratio)
    return jnp.exp2(-batch_size / jnp.maximum(halflife, 1e-8))


def _discriminator_updates(
    state: GANState,
    real: jax.Array,
    labels: jax.Array | None,
    key: jax.Array,
    config: ConfigDict,
    teacher: Generate | None,
) -> _LastUpdate:
    """Update D `config.discriminator_steps` times, on a batch and fakes for each update.

    The arguments are those of `train_step`. If D is not updated, G's fakes are generated once.
    """
    updates = config.discriminator_steps
    num_batches = max(updates, 1)
    adaptive = config.augment.ada_target > 0
    probability = state.augment_probability if adaptive else config.augment.probability
    generator, discriminator = state.generator, state.discriminator
    real_logits, metrics, total_penalty, num_penalties = (
        None,
        {},
        jnp.float32(0.0),
        jnp.float32(0.0),
    )
    # Unrolled, because XLA does not parallelize matrix products in loops on CPUs.
    for index in range(num_batches):
        # Strided slices keep each image on its device.
        batch, batch_labels = jax.tree.map(
            lambda x, first=index: x[first::num_batches], (real, labels)
        )
        context = StepContext(
            config=config,
            key=jax.random.fold_in(key, RngStream.FURTHER_UPDATES + index) if index else key,
            step=state.step,
            discriminator_step=state.step * updates + index,
            probability=probability,
            teacher=teacher,
        ).with_conditions(batch_labels, discriminator)
        if config.augment.horizontal_flip:
            batch = augmentation.flip(context.stream(RngStream.FLIP), batch)
        fake, generator_vjp, generator = context.generate(generator, batch, RngStream.LATENTS)
        previous = discriminator
        if updates:
            discriminator, real_logits, metrics = _update_discriminator(
                previous, batch, fake, context
            )
            total_penalty += metrics.get('discriminator/penalty', 0.0)
            num_penalties += context.penalty_is_due.astype(jnp.float32)
    if 'discriminator/penalty' in metrics:
        metrics['discriminator/penalty'] = total_penalty / jnp.maximum(num_penalties, 1.0)
    fixed = discriminator if config.update_order == 'alternating' else previous
    return _LastUpdate(
        generator, discriminator, fixed, context, batch, fake, generator_vjp, real_logits, metrics
    )


def _update_discriminator(
    discriminator: NetworkState, real: jax.Array, fake: jax.Array, context: StepContext
) -> tuple[NetworkState, jax.Array, Metrics]:
    """Return the updated D, the logits of real images, and metrics; G is not differentiated."""

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array, Metrics]]:
        return _discriminator_loss(discriminator.replace(params=params), real, fake, context)

    (loss, (statistics, real_logits, fake_logits, terms)), grads = jax.value_and_grad(
        loss_fn, has_aux=True
    )(discriminator.params)
    output = context.loss.output
    metrics = terms | {
        'discriminator/loss': loss,
        'discriminator/real': jnp.mean(output(real_logits)),
        'discriminator/fake': jnp.mean(output(fake_logits)),
    }
    if gradient_penalties.is_used(context.config.penalty):
        penalty, penalty_grads = _penalty(discriminator, real, fake, context)
        grads = jax.tree.map(jnp.add, grads, penalty_grads)
        metrics['discriminator/penalty'] = penalty
    metrics['discriminator/gradient_norm'] = optax.tree.norm(grads)
    return discriminator.apply_gradients(grads=grads, **statistics), real_logits, metrics


def _discriminator_loss(
    discriminator: NetworkState, real: jax.Array, fake: jax.Array, context: StepContext
) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array, Metrics]]:
    """Return D's loss, and (statistics, logits of real images, logits of fakes, metrics)."""
    config = context.config
    augmented_real = context.augment(real, RngStream.AUGMENT_REAL)
    augmented_fake = context.augment(fake, RngStream.AUGMENT_FAKE)
    real_logits, discriminator = context.discriminate(
        discriminator, augmented_real, RngStream.DROPOUT_REAL
    )
    fake_logits, discriminator = context.discriminate(
        discriminator, augmented_fake, RngStream.DROPOUT_FAKE
    )
    loss = context.loss.discriminator(
        *losses.flip_labels(
            context.stream(RngStream.FLIP_LABELS),
            real_logits,
            fake_logits,
            config.loss.label_flip_prob,
        )
    )
    if context.mismatched is not None:
        mismatched_logits, discriminator = context.discriminate(
            discriminator, augmented_real, RngStream.DROPOUT_REAL, context.mismatched
        )
        # GAN-CLS: real images with mismatched captions count as fake (Reed et al. 2016).
        weight = config.text.mismatch_weight
        mismatch_loss = context.loss.discriminator(real_logits, mismatched_logits)
        loss = (loss + weight * mismatch_loss) / (1.0 + weight)
    metrics = {}
    if config.loss.rotation_weight:
        rotation, discriminator = context.rotation_loss(discriminator, real, RngStream.ROTATION)
        loss += config.loss.rotation_weight * rotation
        metrics['discriminator/rotation'] = rotation
    return loss, (discriminator.statistics, real_logits, fake_logits, metrics)


def _penalty(
    discriminator: NetworkState, real: jax.Array, fake: jax.Array, context: StepContext
) -> tuple[jax.Array, Any]:
    """Return the weighted penalties times `interval` and their gradient; 0 if they are not due.

    The factor keeps the average weight of lazy penalties (Karras et al. 2020, arXiv:1912.04958,
    section 3.1). The paper's correction of Adam's hyperparameters is not applied. As in the
    authors' code, the differentiated function includes the augmentation.
    """
    config = context.config.penalty

    def total(params: Any) -> jax.Array:
        def logits(images: jax.Array) -> jax.Array:
            augmented = context.augment(images, RngStream.AUGMENT_REAL)
            network = discriminator.replace(params=params)
            return context.discriminate(network, augmented, RngStream.DROPOUT_REAL)[0]

        key = context.stream(RngStream.PENALTY)
        return config.interval * gradient_penalties.total(logits, real, fake, key, config)

    if config.interval == 1:
        return jax.value_and_grad(total)(discriminator.params)
    return jax.lax.cond(
        context.penalty_is_due,
        jax.value_and_grad(total),
        lambda params: (jnp.float32(0.0), jax.tree.map(jnp.zeros_like, params)),
        discriminator.params,
    )


def _update_generator(last: _LastUpdate) -> tuple[NetworkState, Metrics]:
    """Return the updated G, and metrics."""
    generator, context = last.generator, last.context
    fake, generator_vjp, stream = last.fake, last.generator_vjp, RngStream.LATENTS
    if context.config.resample_latents:
        stream = RngStream.RESAMPLED_LATENTS
        fake, generator_vjp, generator = context.generate(generator, last.real, stream)
    targets = context.targets(last.real, stream)
    (loss, metrics), images_grad = jax.value_and_grad(_generator_loss, has_aux=True)(
        fake, targets, last.real, last.fixed_discriminator, context
    )
    (grads,) = generator_vjp(images_grad)
    metrics |= {'generator/loss': loss, 'generator/gradient_norm': optax.tree.norm(grads)}
    return generator.apply_gradients(grads=grads), metrics


def _generator_loss(
    fake: jax.Array,
    targets: jax.Array,
    real: jax.Array,
    discriminator: NetworkState,
    context: StepContext,
) -> tuple[jax.Array, Metrics]:
    """Return G's loss and, if it has several terms, their values; D's parameters are fixed."""
    weights = context.config.loss
    terms = {}  # name: (weight, value)
    if weights.adversarial_weight:
        adversarial = _adversarial_loss(fake, real, discriminator, context)
        terms['adversarial'] = weights.adversarial_weight, adversarial
    if weights.content_weight:
        content = losses.content(fake, targets, weights.content_norm)
        terms['content'] = weights.content_weight, content
    if weights.feature_matching_weight:
        # The images of a pair would be augmented differently, so they are not augmented.
        pairs = context.paired_features(discriminator, targets, fake)
        terms['feature_matching'] = weights.feature_matching_weight, losses.feature_matching(pairs)
    if weights.generator_rotation_weight:
        rotation, _ = context.rotation_loss(discriminator, fake, RngStream.ROTATION_GENERATOR)
        terms['rotation'] = weights.generator_rotation_weight, rotation
    total = sum(weight * value for weight, value in terms.values())
    metrics = {f'generator/{name}': value for name, (_, value) in terms.items() if len(terms) > 1}
    return total, metrics


def _adversarial_loss(
    fake: jax.Array, real: jax.Array, discriminator: NetworkState, context: StepContext
) -> jax.Array:
    """Return G's adversarial loss."""
    # With 'simultaneous', G's loss has the keys of D's loss. XLA then merges both forward passes of
    # D, unless latents are resampled or D has spectral normalization.
    augment, dropout = RngStream.AUGMENT_FAKE, RngStream.DROPOUT_FAKE
    if context.config.update_order == 'alternating':
        augment, dropout = RngStream.AUGMENT_GENERATOR, RngStream.DROPOUT_GENERATOR
    real_logits = None
    if context.loss.uses_real_logits:
        augmented_real = context.augment(real, RngStream.AUGMENT_REAL)
        real_logits, _ = context.discriminate(discriminator, augmented_real, RngStream.DROPOUT_REAL)
    fake_logits, _ = context.discriminate(discriminator, context.augment(fake, augment), dropout)
    return context.loss.generator(real_logits, fake_logits)

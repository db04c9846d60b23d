"""Training step of a GAN, as pure functions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dcgan_jax import augmentation, gradient_penalties, losses
from dcgan_jax.data import captions
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.step_context import Generate, RngStream, StepContext
from dcgan_jax.train_state import GANState, NetworkState

Metrics = dict[str, jax.Array]


def train_step(
    state: GANState,
    real: jax.Array,
    labels: jax.Array | None,
    key: jax.Array,
    config: ConfigDict,
    teacher: Generate | None = None,
) -> tuple[GANState, Metrics]:
    """Update D `config.discriminator_steps` times, then G once, then the EMA.

    Real images and fakes pass through D separately, each with its own BatchNorm statistics. With
    `config.update_order='alternating'`, G's gradients are computed with the updated D (Goodfellow
    et al. 2014, algorithm 1); with 'simultaneous', they are computed with D before its update. Both
    updates use the same forward pass of G, unless `config.resample_latents` is set. Fakes have the
    classes of the real images of the batch.

    Args:
        state: The state before the step.
        real: Images `[batch_size * max(discriminator_steps, 1), H, W, C]`, float32 in [-1, 1].
        labels: Classes of the images, int32 `[N]`; None if unconditional.
        key: PRNG key of the step.
        config: The run's config.
        teacher: Generator whose images are the targets of G, see `train_state.Teacher`.

    Returns:
        The state after the step, and metrics, float32 scalars: the loss, gradient norm and
        parameter norm of each network; 'discriminator/real' and 'discriminator/fake', the mean of
        the logits (of their sigmoids for `config.loss.name='non_saturating'`) in D's last update;
        'discriminator/penalty', the weighted penalty times `config.penalty.interval`, averaged over
        the updates of D that include it (0 if none does). There are further metrics for further
        loss terms and for ADA.
    """
    updates = config.discriminator_steps
    num_batches = max(updates, 1)
    adaptive = config.augment.ada_target > 0
    probability = state.augment_probability if adaptive else config.augment.probability
    generator, discriminator = state.generator, state.discriminator
    metrics, total_penalty, num_due = {}, jnp.float32(0.0), jnp.float32(0.0)
    # Unrolled, because XLA does not parallelize matrix products in loops on CPUs.
    for index in range(num_batches):
        # Strided slices keep each image on its device.
        batch, batch_labels = jax.tree.map(
            lambda x, first=index: x[first::num_batches], (real, labels)
        )
        update_key = jax.random.fold_in(key, RngStream.FURTHER_UPDATES + index) if index else key
        discriminator_step = state.step * updates + index
        conditions = _sample_conditions(update_key, batch_labels, discriminator, config)
        context = StepContext(
            config, update_key, state.step, discriminator_step, *conditions, probability, teacher
        )
        if config.augment.horizontal_flip:
            batch = augmentation.flip(context.stream(RngStream.FLIP), batch)
        fake, generator_vjp, statistics = context.generate(generator, batch, RngStream.LATENTS)
        generator = generator.replace(**statistics)
        previous = discriminator
        if updates:
            discriminator, real_logits, metrics = _update_discriminator(
                previous, batch, fake, context
            )
            total_penalty += metrics.get('discriminator/penalty', 0.0)
            num_due += context.penalty_is_due.astype(jnp.float32)

    stream = RngStream.LATENTS
    if config.resample_latents:
        stream = RngStream.RESAMPLED_LATENTS
        fake, generator_vjp, statistics = context.generate(generator, batch, stream)
        generator = generator.replace(**statistics)
    fixed_discriminator = discriminator if config.update_order == 'alternating' else previous
    (loss, terms), images_grad = jax.value_and_grad(_generator_loss, has_aux=True)(
        fake, context.targets(batch, stream), batch, fixed_discriminator, context
    )
    (generator_grads,) = generator_vjp(images_grad)
    generator = generator.apply_gradients(grads=generator_grads)

    step = state.step + 1
    metrics |= terms | {
        'generator/loss': loss,
        'generator/gradient_norm': optax.tree.norm(generator_grads),
        # Finite norms imply that the new state is finite.
        'generator/parameter_norm': optax.tree.norm(generator.params),
        'discriminator/parameter_norm': optax.tree.norm(discriminator.params),
    }
    if 'discriminator/penalty' in metrics:
        metrics['discriminator/penalty'] = total_penalty / jnp.maximum(num_due, 1.0)
    if adaptive:
        metrics['augment/probability'] = probability
        probability = augmentation.adapt(probability, real_logits, len(real), config.augment)
    return GANState(
        step=step,
        generator=generator,
        discriminator=discriminator,
        **_update_ema(state, generator, ema_decay(step, len(batch), config.ema)),
        augment_probability=probability if adaptive else {},
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


def _update_ema(state: GANState, generator: NetworkState, decay: jax.Array) -> dict[str, Any]:
    """Return the EMA's fields of `GANState` after an update of G."""
    fields = {'ema_params': generator.params}
    if state.ema_batch_stats:
        fields['ema_batch_stats'] = generator.batch_stats
    old = {name: getattr(state, name) for name in fields}
    return {'ema_batch_stats': {}} | optax.incremental_update(fields, old, 1.0 - decay)


def _sample_conditions(
    key: jax.Array, labels: jax.Array | None, network: NetworkState, config: ConfigDict
) -> tuple[jax.Array | None, jax.Array | None]:
    """Sample a condition for each label and, for GAN-CLS, a condition of a different class."""
    if not captions.is_used(config):
        return labels, None
    conditioner = Conditioner.create(config, len(network.captions['condition']['table']))
    conditions = conditioner.sample(jax.random.fold_in(key, RngStream.CAPTION), labels)
    if not config.text.mismatch_weight:
        return conditions, None
    mismatch_key = jax.random.fold_in(key, RngStream.MISMATCH)
    return conditions, conditioner.sample_mismatched(mismatch_key, labels)


def _update_discriminator(
    network: NetworkState, real: jax.Array, fake: jax.Array, context: StepContext
) -> tuple[NetworkState, jax.Array, Metrics]:
    """Return the updated D, the logits of real images, and metrics; G is not differentiated."""
    config = context.config
    augmented_real, augmented_fake = (
        context.augment(real, RngStream.AUGMENT_REAL), context.augment(fake, RngStream.AUGMENT_FAKE)
    )  # fmt: skip

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array, Metrics]]:
        real_logits, statistics = context.apply_discriminator(
            network, params, network.statistics, augmented_real, RngStream.DROPOUT_REAL
        )
        fake_logits, statistics = context.apply_discriminator(
            network, params, statistics, augmented_fake, RngStream.DROPOUT_FAKE
        )
        flipped = losses.flip_labels(
            context.stream(RngStream.FLIP_LABELS),
            real_logits,
            fake_logits,
            config.loss.label_flip_prob,
        )
        loss = losses.create(config.loss).discriminator(*flipped)
        if context.mismatched is not None:
            mismatched = dataclasses.replace(context, labels=context.mismatched)
            logits, statistics = mismatched.apply_discriminator(
                network, params, statistics, augmented_real, RngStream.DROPOUT_REAL
            )
            # GAN-CLS: real images with mismatched captions count as fake (Reed et al. 2016).
            weight = config.text.mismatch_weight
            mismatch_loss = losses.create(config.loss).discriminator(real_logits, logits)
            loss = (loss + weight * mismatch_loss) / (1.0 + weight)
        terms = {}
        if config.loss.rotation_weight:
            term, statistics = context.rotation_loss(
                network, params, statistics, real, RngStream.ROTATION
            )
            loss += config.loss.rotation_weight * term
            terms['discriminator/rotation'] = term
        return loss, (statistics, real_logits, fake_logits, terms)

    (loss, (statistics, real_logits, fake_logits, terms)), grads = jax.value_and_grad(
        loss_fn, has_aux=True
    )(network.params)
    output = jax.nn.sigmoid if config.loss.name == 'non_saturating' else lambda logits: logits
    metrics = terms | {
        'discriminator/loss': loss,
        'discriminator/real': jnp.mean(output(real_logits)),
        'discriminator/fake': jnp.mean(output(fake_logits)),
    }
    if gradient_penalties.is_used(config.penalty):
        penalty, penalty_grads = _penalty(network, real, fake, context)
        grads = jax.tree.map(jnp.add, grads, penalty_grads)
        metrics['discriminator/penalty'] = penalty
    metrics['discriminator/gradient_norm'] = optax.tree.norm(grads)
    return network.apply_gradients(grads=grads, **statistics), real_logits, metrics


def _penalty(
    network: NetworkState, real: jax.Array, fake: jax.Array, context: StepContext
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
            return context.apply_discriminator(
                network, params, network.statistics, augmented, RngStream.DROPOUT_REAL
            )[0]

        key = context.stream(RngStream.PENALTY)
        return config.interval * gradient_penalties.total(logits, real, fake, key, config)

    if config.interval == 1:
        return jax.value_and_grad(total)(network.params)
    return jax.lax.cond(
        context.penalty_is_due,
        jax.value_and_grad(total),
        lambda params: (jnp.float32(0.0), jax.tree.map(jnp.zeros_like, params)),
        network.params,
    )


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
        maps = [
            context.features(discriminator, images, RngStream.AUGMENT_GENERATOR)
            for images in (targets, fake)
        ]
        terms['feature_matching'] = weights.feature_matching_weight, losses.feature_matching(*maps)
    if weights.generator_rotation_weight:
        rotation, _ = context.rotation_loss(
            discriminator,
            discriminator.params,
            discriminator.statistics,
            fake,
            RngStream.ROTATION_GENERATOR,
        )
        terms['rotation'] = weights.generator_rotation_weight, rotation
    total = sum(weight * value for weight, value in terms.values())
    metrics = {f'generator/{name}': value for name, (_, value) in terms.items() if len(terms) > 1}
    return total, metrics


def _adversarial_loss(
    fake: jax.Array, real: jax.Array, discriminator: NetworkState, context: StepContext
) -> jax.Array:
    """Return G's adversarial loss."""
    config = context.config
    # With 'simultaneous', the keys equal those of D's update, so that XLA merges both forward
    # passes of D, unless latents are resampled or D has spectral normalization.
    alternating = config.update_order == 'alternating'
    augment, dropout = (
        (RngStream.AUGMENT_GENERATOR, RngStream.DROPOUT_GENERATOR)
        if alternating
        else (RngStream.AUGMENT_FAKE, RngStream.DROPOUT_FAKE)
    )

    def logits(images: jax.Array, dropout: RngStream) -> jax.Array:
        return context.apply_discriminator(
            discriminator, discriminator.params, discriminator.statistics, images, dropout
        )[0]

    loss = losses.create(config.loss)
    real_logits = None
    if loss.uses_real_logits:
        real_logits = logits(context.augment(real, RngStream.AUGMENT_REAL), RngStream.DROPOUT_REAL)
    return loss.generator(real_logits, logits(context.augment(fake, augment), dropout))

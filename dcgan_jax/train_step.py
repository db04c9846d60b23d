"""The adversarial update: pure functions of (state, images, labels, key)."""

import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dcgan_jax import augmentation, gradient_penalties, losses
from dcgan_jax.data import captions, degradations
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.train_state import STATISTICS, GANState, NetworkState

Metrics = dict[str, jax.Array]


class RngStream(enum.IntEnum):
    """Streams of random numbers within an update; folded into its key."""

    LATENTS = 0
    FRESH_LATENTS = 1
    DROPOUT_REAL = 2
    DROPOUT_FAKE = 3
    DROPOUT_GENERATOR = 4
    VIEW_REAL = 5
    VIEW_FAKE = 6
    VIEW_GENERATOR = 7
    FLIP = 8
    FLIP_LABELS = 9
    PENALTY = 10
    FURTHER = 11  # and up to 63 more: keys of further updates of D in a step
    CAPTION = 128
    MISMATCH = 129
    ROTATION = 130
    ROTATION_GENERATOR = 131


@dataclasses.dataclass(frozen=True)
class StepContext:
    """What all parts of one training step share.

    Attributes:
        config: of the run.
        key: of the update.
        step: steps done before, int32 scalar.
        count: updates of D done before, int32 scalar.
        labels: int32 `[B]`, classes or captions of real and fake images alike; None without.
        mismatched: captions of other classes, int32 `[B]`; None if they have no use.
        probability: of each augmentation.
    """

    config: ConfigDict
    key: jax.Array
    step: jax.Array
    count: jax.Array
    labels: jax.Array | None
    mismatched: jax.Array | None
    probability: float | jax.Array

    @property
    def penalty_is_due(self) -> jax.Array:
        """Whether this update of D includes the gradient penalties, a bool scalar."""
        return self.count % self.config.penalty.interval == 0

    def stream(self, stream: RngStream) -> jax.Array:
        """The key of a stream."""
        return jax.random.fold_in(self.key, stream)

    def generate(
        self, network: NetworkState, real: jax.Array, stream: RngStream
    ) -> tuple[jax.Array, Any, Any]:
        """(fakes, function from their gradient to the parameters', updated statistics)."""
        given = degradations.sample_inputs(self.stream(stream), self.config, real)

        def forward(params: Any) -> tuple[jax.Array, Any]:
            fake, updated = self._apply(network, params, network.statistics, given)
            return fake, self._statistics(updated)

        return jax.vjp(forward, network.params, has_aux=True)

    def augment(self, images: jax.Array, stream: RngStream) -> jax.Array:
        """Augmented images, as D receives them."""
        return augmentation.augment_inputs(
            self.stream(stream), images, self.step, self.probability, self.config.augment
        )

    def apply_discriminator(
        self,
        network: NetworkState,
        params: Any,
        statistics: Any,
        images: jax.Array,
        stream: RngStream,
    ) -> tuple[jax.Array, Any]:
        """Returns (logits, updated statistics) of D in training mode; `stream` seeds dropout."""
        logits, updated = self._apply(
            network, params, statistics, images, rngs={'dropout': self.stream(stream)}
        )
        return logits, self._statistics(updated)

    def rotation_loss(
        self,
        network: NetworkState,
        params: Any,
        statistics: Any,
        images: jax.Array,
        stream: RngStream,
    ) -> tuple[jax.Array, Any]:
        """Returns the cross-entropy of D's rotation prediction and the updated statistics."""
        rotation, view, dropout = jax.random.split(self.stream(stream), 3)
        rotated, num_rot90 = augmentation.rotate(rotation, images)
        seen = augmentation.augment_inputs(
            view, rotated, self.step, self.probability, self.config.augment
        )
        _, updated = self._apply(
            network, params, statistics, seen, 'rotation', rngs={'dropout': dropout}
        )
        (logits,) = updated['rotation']['logits']
        return losses.rotation(logits, num_rot90), self._statistics(updated)

    def features(
        self, network: NetworkState, images: jax.Array, stream: RngStream
    ) -> list[jax.Array]:
        """The maps after D's stages, `[B, h, w, c]` each, in training mode."""
        _, updated = self._apply(
            network, network.params, network.statistics, images, 'intermediates',
            rngs={'dropout': self.stream(stream)},
        )  # fmt: skip
        return jax.tree.leaves(updated['intermediates'])

    def _apply(
        self,
        network: NetworkState,
        params: Any,
        statistics: Any,
        given: jax.Array,
        *collections: str,
        **options: Any,
    ) -> tuple[jax.Array, Any]:
        return network.apply_fn(
            {'params': params, **statistics},
            given,
            self.labels,
            train=True,
            mutable=(*STATISTICS, *collections),
            **options,
        )

    @staticmethod
    def _statistics(updated: Any) -> dict[str, Any]:
        return {name: updated.get(name, {}) for name in STATISTICS}


def train_step(
    state: GANState, real: jax.Array, labels: jax.Array | None, key: jax.Array, config: ConfigDict
) -> tuple[GANState, Metrics]:
    """`config.discriminator_steps` updates of D (none is fine), then one of G, then of the EMA.

    Real and fake batches go through D separately, so that its BatchNorm sees each alone. With
    `config.update_order` 'alternating' G learns from the D just updated (Goodfellow et al. 2014,
    algorithm 1), with 'simultaneous' from the D before. G's forward pass serves both updates unless
    `config.resample_latents` asks for other latents in G's. Fakes have the classes of the real
    images beside them.

    Args:
        state: before the step.
        real: images `[batch_size * max(discriminator_steps, 1), H, W, C]`, float32 in [-1, 1].
        labels: int32, one for each image, where `config.conditional`; else None.
        key: of this step.
        config: of the run.

    Returns:
        The state after the step, and float32 scalars: both losses, the norms of both gradients and
        of both networks' new parameters, and 'discriminator/real' and 'discriminator/fake': D's
        mean output for real images and fakes in its last update. An output is sigmoid(logit), a
        probability, for config.loss.name='non_saturating', and the logit for other losses.
        'discriminator/penalty' is the weighted penalty, times `config.penalty.interval`, averaged
        over the step's updates of D in which it was due; 0 if it was due in none.
    """
    updates = config.discriminator_steps
    num_batches = max(updates, 1)
    adaptive = config.augment.ada_target > 0
    probability = state.augment_probability if adaptive else config.augment.probability
    generator, discriminator = state.generator, state.discriminator
    metrics, total_penalty, num_due = {}, jnp.float32(0.0), jnp.float32(0.0)
    for index in range(num_batches):
        # Strided, so that each device keeps its own part of the batch.
        batch, batch_labels = jax.tree.map(
            lambda x, first=index: x[first::num_batches], (real, labels)
        )
        update_key = jax.random.fold_in(key, RngStream.FURTHER + index) if index else key
        count = state.step * updates + index
        conditions = _sample_conditions(update_key, batch_labels, discriminator, config)
        context = StepContext(config, update_key, state.step, count, *conditions, probability)
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

    if config.resample_latents:
        fake, generator_vjp, statistics = context.generate(
            generator, batch, RngStream.FRESH_LATENTS
        )
        generator = generator.replace(**statistics)
    fixed_discriminator = discriminator if config.update_order == 'alternating' else previous
    (loss, terms), images_grad = jax.value_and_grad(_generator_loss, has_aux=True)(
        fake, batch, fixed_discriminator, context
    )
    (generator_grads,) = generator_vjp(images_grad)
    generator = generator.apply_gradients(grads=generator_grads)

    step = state.step + 1
    decay = ema_decay(step, len(batch), config.ema)
    average = lambda new, old: optax.incremental_update(new, old, 1.0 - decay)  # noqa: E731
    averaged = config.ema.batch_stats == 'average'
    metrics |= terms | {
        'generator/loss': loss,
        'generator/gradient_norm': optax.tree.norm(generator_grads),
        # They say that the state after the step, which may be saved, is finite.
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
        ema_params=average(generator.params, state.ema_params),
        ema_batch_stats=average(generator.batch_stats, state.ema_batch_stats) if averaged else {},
        augment_probability=probability if adaptive else {},
    ), metrics


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


def _sample_conditions(
    key: jax.Array, labels: jax.Array | None, network: NetworkState, config: ConfigDict
) -> tuple[jax.Array | None, jax.Array | None]:
    """Return conditions of the classes `labels` and, for GAN-CLS, conditions of other classes."""
    if not captions.is_used(config):
        return labels, None
    conditioner = Conditioner.create(config, len(network.captions['table']))
    conditions = conditioner.sample(jax.random.fold_in(key, RngStream.CAPTION), labels)
    if not config.text.mismatch_weight:
        return conditions, None
    mismatch_key = jax.random.fold_in(key, RngStream.MISMATCH)
    return conditions, conditioner.sample_mismatched(mismatch_key, labels)


def _update_discriminator(
    network: NetworkState, real: jax.Array, fake: jax.Array, context: StepContext
) -> tuple[NetworkState, jax.Array, Metrics]:
    """(D after its update, real logits, metrics). `fake` is constant here: nothing leaks to G."""
    config = context.config
    real_view, fake_view = (
        context.augment(real, RngStream.VIEW_REAL), context.augment(fake, RngStream.VIEW_FAKE)
    )  # fmt: skip

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array, Metrics]]:
        real_logits, statistics = context.apply_discriminator(
            network, params, network.statistics, real_view, RngStream.DROPOUT_REAL
        )
        fake_logits, statistics = context.apply_discriminator(
            network, params, statistics, fake_view, RngStream.DROPOUT_FAKE
        )
        flipped = losses.flip_labels(
            context.stream(RngStream.FLIP_LABELS),
            real_logits,
            fake_logits,
            config.loss.label_flip_prob,
        )
        loss = losses.create(config.loss).discriminator(*flipped)
        if context.mismatched is not None:
            wrong = dataclasses.replace(context, labels=context.mismatched)
            logits, statistics = wrong.apply_discriminator(
                network, params, statistics, real_view, RngStream.DROPOUT_REAL
            )
            # GAN-CLS: a real image with a wrong caption counts as fake (Reed et al. 2016, alg. 1).
            weight = config.text.mismatch_weight
            of_wrong = losses.create(config.loss).discriminator(real_logits, logits)
            loss = (loss + weight * of_wrong) / (1.0 + weight)
        parts = {}
        if config.loss.rotation_weight:
            part, statistics = context.rotation_loss(
                network, params, statistics, real, RngStream.ROTATION
            )
            loss += config.loss.rotation_weight * part
            parts['discriminator/rotation'] = part
        return loss, (statistics, real_logits, fake_logits, parts)

    (loss, (statistics, real_logits, fake_logits, parts)), grads = jax.value_and_grad(
        loss_fn, has_aux=True
    )(network.params)
    output = jax.nn.sigmoid if config.loss.name == 'non_saturating' else lambda logits: logits
    metrics = parts | {
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
    """The weighted penalties and their gradient: every `interval` updates that many times, else 0.

    So a lazy one weighs the same on average (Karras et al. 2020, arXiv:1912.04958, section 3.1;
    their correction of Adam's rates is left out). Images are augmented inside the differentiated
    function, as in the authors' code: slopes are those in images before they are augmented.
    """
    config = context.config.penalty

    def total(params: Any) -> jax.Array:
        def logits(images: jax.Array) -> jax.Array:
            seen = context.augment(images, RngStream.VIEW_REAL)
            return context.apply_discriminator(
                network, params, network.statistics, seen, RngStream.DROPOUT_REAL
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
    fake: jax.Array, real: jax.Array, discriminator: NetworkState, context: StepContext
) -> tuple[jax.Array, Metrics]:
    """Returns G's loss with D constant, and its terms where there are several."""
    weights = context.config.loss
    terms = {}  # name: (weight, value)
    if weights.adversarial_weight:
        adversarial = _adversarial_loss(fake, real, discriminator, context)
        terms['adversarial'] = weights.adversarial_weight, adversarial
    if weights.content_weight:
        content = losses.content(fake, real, weights.content_norm)
        terms['content'] = weights.content_weight, content
    if weights.feature_matching_weight:
        # Without augmentation: each image of a pair would be augmented differently.
        maps = [
            context.features(discriminator, images, RngStream.VIEW_GENERATOR)
            for images in (real, fake)
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
    several = {f'generator/{name}': value for name, (_, value) in terms.items() if len(terms) > 1}
    return total, several


def _adversarial_loss(
    fake: jax.Array, real: jax.Array, discriminator: NetworkState, context: StepContext
) -> jax.Array:
    """G's adversarial loss."""
    config = context.config
    # 'simultaneous' is one forward pass of D for both updates, unless latents are fresh or D has
    # spectral normalization, whose vectors move with each pass.
    alternating = config.update_order == 'alternating'
    view, dropout = (
        (RngStream.VIEW_GENERATOR, RngStream.DROPOUT_GENERATOR)
        if alternating
        else (RngStream.VIEW_FAKE, RngStream.DROPOUT_FAKE)
    )

    def logits(images: jax.Array, dropout: RngStream) -> jax.Array:
        return context.apply_discriminator(
            discriminator, discriminator.params, discriminator.statistics, images, dropout
        )[0]

    loss = losses.create(config.loss)
    real_logits = None
    if loss.uses_real_logits:
        real_logits = logits(context.augment(real, RngStream.VIEW_REAL), RngStream.DROPOUT_REAL)
    return loss.generator(real_logits, logits(context.augment(fake, view), dropout))

"""Inputs of an update, and forward passes of both networks in training mode."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dcgan_jax import augmentation, losses
from dcgan_jax.data import captions, degradations
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.train_state import STATISTICS, NetworkState

# A function from latents and conditions to images.
Generate = Callable[[jax.Array, jax.Array | None], jax.Array]
# A function from the gradient with respect to images to a tuple with that of the parameters.
Vjp = Callable[[jax.Array], tuple[Any]]


class RngStream(enum.IntEnum):
    """Random streams of an update; each value is folded into the update's key."""

    LATENTS = 0
    RESAMPLED_LATENTS = 1
    DROPOUT_REAL = 2
    DROPOUT_FAKE = 3
    DROPOUT_GENERATOR = 4
    AUGMENT_REAL = 5
    AUGMENT_FAKE = 6
    AUGMENT_GENERATOR = 7
    FLIP = 8
    FLIP_LABELS = 9
    PENALTY = 10
    FURTHER_UPDATES = 11  # Update i > 0 of D in a step has the key of 11 + i, which is below 128.
    CAPTION = 128
    MISMATCH = 129
    ROTATION = 130
    ROTATION_GENERATOR = 131


@dataclasses.dataclass(frozen=True)
class StepContext:
    """Inputs shared by all loss terms of an update, and forward passes in training mode.

    A forward pass returns the network with updated statistics. Losses are differentiated with
    respect to the parameters of the network that is passed.

    Attributes:
        config: The run's config.
        key: Key of the update.
        step: Number of completed steps, int32 scalar.
        discriminator_step: Number of completed updates of D, int32 scalar.
        probability: Probability of each augmentation.
        teacher: Generator whose images are the targets of G; None without distillation.
        conditions: Conditions of the real images and of the fakes, int32 `[B]`: classes, or indices
            of captions; None if unconditional.
        mismatched: Conditions of other classes for GAN-CLS, int32 `[B]`; None if it is not used.
    """

    config: ConfigDict
    key: jax.Array
    step: jax.Array
    discriminator_step: jax.Array
    probability: float | jax.Array
    teacher: Generate | None = None
    conditions: jax.Array | None = None
    mismatched: jax.Array | None = None

    @property
    def penalty_is_due(self) -> jax.Array:
        """Whether this update of D includes the gradient penalties, a bool scalar."""
        return self.discriminator_step % self.config.penalty.interval == 0

    @property
    def loss(self) -> losses.AdversarialLoss:
        """The adversarial loss of both networks."""
        return losses.create(self.config.loss)

    def with_conditions(self, labels: jax.Array | None, network: NetworkState) -> 'StepContext':
        """Return a copy with conditions of the classes `labels`, int32 `[B]`.

        Args:
            labels: Classes of the real images; None if unconditional.
            network: A network, which contains the captions of text-conditional runs.
        """
        if not captions.is_used(self.config):
            return dataclasses.replace(self, conditions=labels)
        num_captions = len(network.captions['condition']['table'])
        conditioner = Conditioner.create(self.config, num_captions)
        mismatched = None
        if self.config.text.mismatch_weight:
            mismatched = conditioner.sample_mismatched(self.stream(RngStream.MISMATCH), labels)
        return dataclasses.replace(
            self,
            conditions=conditioner.sample(self.stream(RngStream.CAPTION), labels),
            mismatched=mismatched,
        )

    def stream(self, stream: RngStream) -> jax.Array:
        """Return the key of a stream."""
        return jax.random.fold_in(self.key, stream)

    def inputs(self, real: jax.Array, stream: RngStream) -> jax.Array:
        """Sample inputs of G: latents, or degraded real images.

        Calls with the same stream return the same inputs.
        """
        return degradations.sample_inputs(self.stream(stream), self.config, real)

    def generate(
        self, generator: NetworkState, real: jax.Array, stream: RngStream
    ) -> tuple[jax.Array, Vjp, NetworkState]:
        """Return fakes, their VJP function for G's parameters, and G with updated statistics.

        Args:
            generator: The generator.
            real: Real images `[B, H, W, C]`, which are the source of the inputs for restoration.
            stream: Stream of the inputs.
        """
        inputs = self.inputs(real, stream)

        def forward(params: Any) -> tuple[jax.Array, Any]:
            fake, updated, _ = self._apply(generator.replace(params=params), inputs)
            return fake, updated.statistics

        fake, vjp, statistics = jax.vjp(forward, generator.params, has_aux=True)
        return fake, vjp, generator.replace(**statistics)

    def targets(self, real: jax.Array, stream: RngStream) -> jax.Array:
        """Return the target images of the fakes that `generate` returns for the same stream.

        These are the teacher's images for the same inputs or, without a teacher, the real images.
        """
        if self.teacher is None:
            return real
        return self.teacher(self.inputs(real, stream), self.conditions)

    def augment(self, images: jax.Array, stream: RngStream) -> jax.Array:
        """Return augmented images, the input of D."""
        return self._augment(self.stream(stream), images)

    def discriminate(
        self,
        discriminator: NetworkState,
        images: jax.Array,
        dropout: RngStream,
        conditions: jax.Array | None = None,
    ) -> tuple[jax.Array, NetworkState]:
        """Return D's logits, and D with updated statistics.

        Args:
            discriminator: The discriminator.
            images: Images `[B, H, W, C]`, already augmented.
            dropout: Stream of the dropout masks.
            conditions: Conditions, int32 `[B]`; by default, those of the update.

        Returns:
            Logits `[B / m, 1]` for images packed in groups of m, and the discriminator.
        """
        logits, discriminator, _ = self._apply(
            discriminator, images, self.stream(dropout), conditions=conditions
        )
        return logits, discriminator

    def rotation_loss(
        self, discriminator: NetworkState, images: jax.Array, stream: RngStream
    ) -> tuple[jax.Array, NetworkState]:
        """Return the cross-entropy of D's rotation prediction, and D with updated statistics."""
        rotation_key, augment_key, dropout_key = jax.random.split(self.stream(stream), 3)
        rotated, num_rot90 = augmentation.rotate(rotation_key, images)
        _, discriminator, sown = self._apply(
            discriminator, self._augment(augment_key, rotated), dropout_key, 'rotation'
        )
        (logits,) = sown['rotation']['logits']
        return losses.rotation(logits, num_rot90), discriminator

    def paired_features(
        self, discriminator: NetworkState, targets: jax.Array, fake: jax.Array
    ) -> list[tuple[jax.Array, jax.Array]]:
        """Return the feature maps of target images and fakes, `[B, h, w, c]`, for each stage of D.

        Targets and fakes are in one batch, so that D normalizes both with the same statistics.
        Separate statistics would remove differences in the mean or in the scale of a channel.
        """
        conditions = self.conditions
        if conditions is not None:
            conditions = jnp.concatenate([conditions, conditions])
        images = jnp.concatenate([targets, fake])
        _, _, sown = self._apply(
            discriminator, images, None, 'intermediates', conditions=conditions
        )
        return [tuple(jnp.split(maps, 2)) for maps in jax.tree.leaves(sown['intermediates'])]

    def _augment(self, key: jax.Array, images: jax.Array) -> jax.Array:
        return augmentation.augment_inputs(
            key, images, self.step, self.probability, self.config.augment
        )

    def _apply(
        self,
        network: NetworkState,
        inputs: jax.Array,
        dropout: jax.Array | None = None,
        *sown: str,
        conditions: jax.Array | None = None,
    ) -> tuple[jax.Array, NetworkState, dict[str, Any]]:
        """Return the outputs, the network with updated statistics, and the `sown` collections."""
        outputs, updated = network.apply_fn(
            network.variables,
            inputs,
            self.conditions if conditions is None else conditions,
            train=True,
            mutable=(*STATISTICS, *sown),
            rngs={} if dropout is None else {'dropout': dropout},
        )
        statistics = {name: updated.get(name, {}) for name in STATISTICS}
        return outputs, network.replace(**statistics), updated

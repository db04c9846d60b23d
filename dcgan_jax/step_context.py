"""Inputs of an update and forward passes of both networks in training mode."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from dcgan_jax import augmentation, losses
from dcgan_jax.data import degradations
from dcgan_jax.train_state import STATISTICS, NetworkState

Generate = Callable[[jax.Array, jax.Array | None], jax.Array]  # From latents and labels to images.


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
    FURTHER_UPDATES = 11  # Up to 74: keys of the second and later updates of D in a step.
    CAPTION = 128
    MISMATCH = 129
    ROTATION = 130
    ROTATION_GENERATOR = 131


@dataclasses.dataclass(frozen=True)
class StepContext:
    """Inputs shared by all loss terms of an update.

    Attributes:
        config: The run's config.
        key: Key of the update.
        step: Number of completed steps, int32 scalar.
        discriminator_step: Number of completed updates of D, int32 scalar.
        labels: Conditions of the real images and of the fakes, int32 `[B]`; None if unconditional.
        mismatched: Conditions of other classes, int32 `[B]`; None if they are not used.
        probability: Probability of each augmentation.
        teacher: Generator whose images are the targets of G; None without distillation.
    """

    config: ConfigDict
    key: jax.Array
    step: jax.Array
    discriminator_step: jax.Array
    labels: jax.Array | None
    mismatched: jax.Array | None
    probability: float | jax.Array
    teacher: Generate | None = None

    @property
    def penalty_is_due(self) -> jax.Array:
        """Whether this update of D includes the gradient penalties, a bool scalar."""
        return self.discriminator_step % self.config.penalty.interval == 0

    def stream(self, stream: RngStream) -> jax.Array:
        """Return the key of a stream."""
        return jax.random.fold_in(self.key, stream)

    def inputs(self, real: jax.Array, stream: RngStream) -> jax.Array:
        """Sample inputs of G; calls with the same stream return the same inputs."""
        return degradations.sample_inputs(self.stream(stream), self.config, real)

    def generate(
        self, network: NetworkState, real: jax.Array, stream: RngStream
    ) -> tuple[jax.Array, Any, Any]:
        """Return fakes, their VJP function for G's parameters, and the updated statistics."""
        inputs = self.inputs(real, stream)

        def forward(params: Any) -> tuple[jax.Array, Any]:
            fake, updated = self._apply(network, params, network.statistics, inputs)
            return fake, self._statistics(updated)

        return jax.vjp(forward, network.params, has_aux=True)

    def targets(self, real: jax.Array, stream: RngStream) -> jax.Array:
        """Return the target images of the fakes that `generate` returns for the same stream.

        These are the teacher's images for the same inputs or, without a teacher, the real images.
        """
        if self.teacher is None:
            return real
        return self.teacher(self.inputs(real, stream), self.labels)

    def augment(self, images: jax.Array, stream: RngStream) -> jax.Array:
        """Return augmented images, the input of D."""
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
        """Return D's logits and updated statistics in training mode; `stream` is for dropout."""
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
        """Return the cross-entropy of D's rotation prediction and the updated statistics."""
        rotation_key, augment_key, dropout_key = jax.random.split(self.stream(stream), 3)
        rotated, num_rot90 = augmentation.rotate(rotation_key, images)
        augmented = augmentation.augment_inputs(
            augment_key, rotated, self.step, self.probability, self.config.augment
        )
        _, updated = self._apply(
            network, params, statistics, augmented, 'rotation', rngs={'dropout': dropout_key}
        )
        (logits,) = updated['rotation']['logits']
        return losses.rotation(logits, num_rot90), self._statistics(updated)

    def features(
        self, network: NetworkState, images: jax.Array, stream: RngStream
    ) -> list[jax.Array]:
        """Return the feature maps of D's stages, `[B, h, w, c]` each, in training mode."""
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
        inputs: jax.Array,
        *collections: str,
        **options: Any,
    ) -> tuple[jax.Array, Any]:
        return network.apply_fn(
            {'params': params, **statistics},
            inputs,
            self.labels,
            train=True,
            mutable=(*STATISTICS, *collections),
            **options,
        )

    @staticmethod
    def _statistics(updated: Any) -> dict[str, Any]:
        return {name: updated.get(name, {}) for name in STATISTICS}

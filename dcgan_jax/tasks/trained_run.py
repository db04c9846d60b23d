"""Restoring of a training run's config, networks and state, and code shared by the tasks."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax import models, parallel, run_dir
from dcgan_jax.data import classes as classes_lib
from dcgan_jax.data import degradations, sources
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.models import Networks
from dcgan_jax.run_description import Run
from dcgan_jax.runtime import checkpoint_folder, sharding, workdir_guard
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks.options import (
    MAX_NUM,
    MAX_SEED,
    check_choice,
    check_integer,
    check_sequence,
)
from dcgan_jax.train_state import GANState

# Mode of each `config.input.kind` whose generator takes images.
MODES = {'low_resolution': 'super_resolve', 'masked': 'inpaint', 'gray': 'translate'}
FOLDERS = {'latest': checkpoint_folder.FOLDER, 'best': checkpoint_folder.BEST_FOLDER}


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run restored from a checkpoint.

    Attributes:
        run: Config, image shape and class names of the run.
        networks: Flax modules.
        state: State of the checkpoint, replicated over all devices.
        check_workdir: See `workdir_guard.presence_check`.
    """

    run: Run
    networks: Networks
    state: GANState
    check_workdir: Callable[[], None] = lambda: None

    @functools.cached_property
    def sampler(self) -> Sampler:
        """Sampler of the EMA generator."""
        return Sampler(self.networks.generator, self.run.config)

    def latents(self, num: int = 64, *, seed: int = 0) -> np.ndarray:
        """Sample latents, float32 `[num, latent_dim]`; each depends on (seed, index) only.

        Raises:
            UserError: If `num` is not in [1, 1,000,000], `seed` is not in [0, 2**32), or the
                generator takes images.
        """
        _check_takes_latents(self.run)
        check_integer('num', num, 1, MAX_NUM)
        check_integer('seed', seed, 0, MAX_SEED)
        return self.sampler.latents(seed, num)

    def generate(self, latents: np.ndarray, *, classes: Sequence[str] | None = None) -> np.ndarray:
        """Generate images from latents with the EMA generator.

        Args:
            latents: Latents, finite real numbers `[N, latent_dim]`.
            classes: Names or indices of the classes that the latents cycle through; defaults to all
                classes that the run was trained on.

        Returns:
            Images, uint8 `[N, H, W, C]`.

        Raises:
            UserError: If `latents` has another shape or is not finite, a class is unknown or was
                not trained on, or the generator takes images.
        """
        _check_takes_latents(self.run)
        latents = _check_latents(latents, self.run.config.latent_dim)
        conditions = class_labels(self.run, self.networks.conditioner, classes)
        return self.sampler(self.state, latents, np.resize(conditions, len(latents)))

    def sample(
        self, num: int = 64, *, seed: int = 0, classes: Sequence[str] | None = None
    ) -> np.ndarray:
        """Generate images from `latents(num, seed=seed)`; see `generate`."""
        return self.generate(self.latents(num, seed=seed), classes=classes)


def restore(
    workdir: epath.PathLike, checkpoint: str = 'latest', require_latents: bool = False
) -> TrainedRun:
    """Restore the last intact checkpoint of the run in `workdir` on all devices.

    Args:
        workdir: Folder of a training run.
        checkpoint: 'latest', or 'best' for the checkpoint selected by `config.evaluation.best`.
        require_latents: Whether to reject runs whose generator takes images.

    Raises:
        UserError: If there is no run or no intact checkpoint, if the run is rejected, or if
            `checkpoint` is invalid.
    """
    check_choice('checkpoint', checkpoint, FOLDERS)
    workdir = run_dir.folder(workdir)
    check_workdir = workdir_guard.presence_check(workdir)
    run = run_dir.read(workdir)
    if require_latents:
        _check_takes_latents(run)
    networks = models.build(run.config, run.image_shape, run.num_classes)
    abstract_state = parallel.abstract_state_of(run, sharding.create_mesh())
    state, _ = run_dir.restore(workdir, run, abstract_state, FOLDERS[checkpoint])
    if state is None and checkpoint == 'best':
        raise UserError(
            f'{workdir} has no best checkpoint: train with config.evaluation.every above 0, or '
            'use --checkpoint=latest'
        )
    if state is None:
        raise UserError(f'{workdir} has no checkpoint: train the run first')
    return TrainedRun(run, networks, state, check_workdir)


def _check_takes_latents(run: Run) -> None:
    if degradations.takes_images(run.config):
        kind = run.config.input.kind
        raise UserError(
            f'config.input.kind={kind!r}: the generator of this run takes images, not latents; '
            f'use --mode={MODES[kind]}'
        )


def _check_latents(latents: np.ndarray, size: int) -> np.ndarray:
    """Return latents as float32 `[N, size]`.

    Raises:
        UserError: If they have another shape, are not real numbers, or are not finite in float32.
    """
    try:
        given = np.asarray(latents)
    except ValueError as error:  # Lists of different lengths.
        raise UserError(f'latents must be an array [N, {size}] ({error})') from error
    is_real = any(jnp.issubdtype(given.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if not is_real or given.shape[1:] != (size,) or not len(given):
        raise UserError(
            f'latents have dtype {given.dtype} and shape {list(given.shape)}: pass real numbers of '
            f'shape [N, {size}] with N > 0'
        )
    with np.errstate(over='ignore'):
        latents = given.astype(np.float32)
    if not np.isfinite(latents).all():
        raise UserError('latents contain NaN, infinity or values beyond float32: remove them')
    return latents


def merge_config(config: ConfigDict, overrides: ConfigDict | None) -> ConfigDict:
    """Return the run's config with the fields that tasks may override.

    These are the groups of `config_lib.changeable_groups()`, `data.max_pixels`, and `data_dir` if
    it is set.

    Args:
        config: The run's config; not modified.
        overrides: Config passed by the user, or None.

    Raises:
        UserError: If `overrides` is invalid, or has the `data_dir` of a folder of images although
            the run was trained on a TFDS data set.
    """
    if overrides is None:
        return config
    config_lib.validate(overrides)
    # Other names may be defaults of the config file.
    if overrides.data_dir and overrides.dataset == 'folder' != config.dataset:
        raise UserError(
            f'config.dataset=folder: the run was trained on the data set {config.dataset}: pass '
            'its data_dir, or use --images=FOLDER'
        )
    merged = config.copy_and_resolve_references().unlock()
    for group in config_lib.changeable_groups():
        merged[group] = overrides[group].copy_and_resolve_references()
    merged.data.max_pixels = overrides.data.max_pixels
    merged.data_dir = overrides.data_dir or config.data_dir
    return merged.lock()


def open_split(run: Run, config: ConfigDict, split: str) -> ImageSource:
    """Open a split of the run's data set and check that the data set has not changed.

    Args:
        run: The run.
        config: The run's config as returned by `merge_config`.
        split: Name of the split.

    Raises:
        UserError: See `sources.open_split` and `run_dir.check_data`.
    """
    source = sources.open_split(config, split)
    run_dir.check_data(run, source.class_names, source.identity)
    return source


def class_labels(run: Run, conditioner: Conditioner, classes: Sequence[str] | None) -> np.ndarray:
    """Return the labels of classes given by name or index, int32 `[num]`.

    Args:
        run: The run.
        conditioner: Conditioner of the run's networks.
        classes: Names or indices, see `find_classes`; None means all classes that the run was
            trained on, or label 0 for an unconditional run.

    Raises:
        UserError: If a class is unknown or was not trained on, `classes` is empty, or the run is
            unconditional.
    """
    check_sequence('classes', classes)
    if classes is None:
        return np.asarray(conditioner.classes or (0,), np.int32)
    if not run.config.conditional:
        raise UserError(
            '--classes: the run is unconditional; train a conditional one with '
            '--config.conditional=True'
        )
    if not classes:
        raise UserError('--classes is empty: name at least one class, e.g. --classes=cat,dog')
    labels = classes_lib.find_classes('--classes', classes, run.class_names)
    for name, label in zip(classes, labels, strict=True):
        if label not in conditioner.classes:
            trained = classes_lib.describe(conditioner.classes, run.class_names)
            raise UserError(
                f'--classes: the run was not trained on {name!r}, only on {trained}: remove it'
            )
    logging.info('--classes: %s', classes_lib.describe(labels, run.class_names))
    return np.asarray(labels, np.int32)

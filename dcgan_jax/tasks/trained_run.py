"""Restore the config, networks and state of a training run."""

import dataclasses
import difflib
import functools
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax import models, run_dir, train_state
from dcgan_jax.data import degradations
from dcgan_jax.data.conditioner import Conditioner
from dcgan_jax.models import Networks
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime import checkpoint, sharding
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

# Mode of each `config.input.kind` whose generator takes images.
MODES = {'low_resolution': 'super_resolve', 'masked': 'inpaint', 'gray': 'translate'}
FOLDERS = {'latest': checkpoint.FOLDER, 'best': checkpoint.BEST_FOLDER}


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run restored from a checkpoint.

    Attributes:
        run: Config, image shape and class names of the run.
        networks: Flax modules.
        state: State of the checkpoint, replicated over all devices.
    """

    run: Run
    networks: Networks
    state: GANState

    @functools.cached_property
    def sampler(self) -> Sampler:
        """Sampler of the EMA generator."""
        return Sampler(self.networks.generator, self.run.config)

    def latents(self, num: int = 64, *, seed: int = 0) -> np.ndarray:
        """Sample latents, float32 `[num, latent_dim]`; each depends on (seed, index) only."""
        _check_takes_latents(self.run)
        return self.sampler.latents(seed, num)

    def generate(self, latents: np.ndarray, *, classes: Sequence[str] | None = None) -> np.ndarray:
        """Generate images from latents with the EMA generator.

        Args:
            latents: Latents, float32 `[N, latent_dim]`.
            classes: Names or indices of the classes, used in turn; defaults to all classes that
                the run was trained on.

        Returns:
            Images, uint8 `[N, H, W, C]`.

        Raises:
            UserError: If a class is unknown or the generator takes images.
        """
        _check_takes_latents(self.run)
        conditions = class_numbers(self.run, self.networks.conditioner, classes)
        return self.sampler(self.state, latents, np.resize(conditions, len(latents)))

    def sample(
        self, num: int = 64, *, seed: int = 0, classes: Sequence[str] | None = None
    ) -> np.ndarray:
        """Generate images from `latents(num, seed=seed)`; see `generate`."""
        return self.generate(self.latents(num, seed=seed), classes=classes)


def restore(
    workdir: epath.PathLike, which: str = 'latest', require_latents: bool = False
) -> TrainedRun:
    """Restore the last intact checkpoint of the run in `workdir` on all devices.

    Args:
        workdir: Folder of a training run.
        which: 'latest', or 'best' for the checkpoint selected by `config.evaluation.best`.
        require_latents: Whether to reject runs whose generator takes images.

    Raises:
        UserError: If there is no run or no intact checkpoint, or if the run is rejected.
    """
    workdir = run_dir.folder(workdir)
    run = run_dir.read(workdir)
    if require_latents:
        _check_takes_latents(run)
    networks = models.build(run.config, run.image_shape, run.num_classes)
    shapes = jax.eval_shape(
        functools.partial(train_state.create, run.config, networks, run.image_shape)
    )
    like = sharding.abstract(sharding.create_mesh(), shapes)
    state, _ = checkpoint.restore_latest(workdir, like, FOLDERS[which])
    if state is None and which == 'best':
        raise UserError(
            f'{workdir} has no best checkpoint: train with config.evaluation.every above 0, or '
            'use --checkpoint=latest'
        )
    if state is None:
        raise UserError(f'{workdir} has no checkpoint: train the run first')
    return TrainedRun(run, networks, state)


def _check_takes_latents(run: Run) -> None:
    if degradations.takes_images(run.config):
        kind = run.config.input.kind
        raise UserError(
            f'config.input.kind={kind!r}: the generator of this run takes images, not latents; '
            f'use --mode={MODES[kind]}'
        )


def merge_config(config: ConfigDict, overrides: ConfigDict | None) -> ConfigDict:
    """Return the run's config with the fields that tasks may override.

    These are the groups of `config_lib.changeable_groups()`, and `data_dir` if it is set.

    Args:
        config: The run's config; not modified.
        overrides: Config passed by the user, or None.

    Raises:
        UserError: If `overrides` is invalid.
    """
    if overrides is None:
        return config
    config_lib.validate(overrides)
    merged = config.copy_and_resolve_references().unlock()
    for group in config_lib.changeable_groups():
        merged[group] = overrides[group].copy_and_resolve_references()
    merged.data_dir = overrides.data_dir or config.data_dir
    return merged.lock()


def class_numbers(run: Run, conditioner: Conditioner, classes: Sequence[str] | None) -> np.ndarray:
    """Return the labels of classes given by name or index, int32 `[num]`.

    Args:
        run: The run.
        conditioner: Conditioner of its networks.
        classes: Names or indices; None means all classes that the run was trained on, or label 0
            for an unconditional run.

    Raises:
        UserError: If the run is unconditional or was not trained on a class.
    """
    if classes is None:
        return np.asarray(conditioner.classes or (0,), np.int32)
    if not run.config.conditional:
        raise UserError(
            '--classes: the run is unconditional; train a conditional one with '
            '--config.conditional=True'
        )
    if not classes:
        raise UserError('--classes is empty: name at least one class, e.g. --classes=cat,dog')
    names = list(run.class_names)
    labels = []
    for name in classes:
        if name in names:
            labels.append(names.index(name))
        elif name.isdecimal() and int(name) < len(names):
            labels.append(int(name))
        else:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f'Did you mean {close[0]}? ' if close else ''
            raise UserError(
                f'--classes: {name!r} is unknown. {hint}The classes are {", ".join(names)}'
            )
        if labels[-1] not in conditioner.classes:
            raise UserError(
                f'--classes: the run was not trained on {name!r} (config.data.classes='
                f'{tuple(run.config.data.classes)}): remove it'
            )
    return np.asarray(labels, np.int32)

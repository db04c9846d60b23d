"""What every task starts from: a run's config, networks and last state."""

import difflib
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax import models, run_dir, train_state
from dcgan_jax.data import captions, degradations
from dcgan_jax.models import Networks
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime import checkpoint, sharding
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

# What a run whose generator takes images is for.
MODES = {'low_resolution': 'super_resolve', 'masked': 'inpaint', 'grey': 'translate'}
FOLDERS = {'latest': checkpoint.FOLDER, 'best': checkpoint.BEST_FOLDER}


class TrainedRun(NamedTuple):
    """A run restored from a checkpoint.

    Attributes:
        run: Its config, and the shape and class names of its images.
        networks: Modules without parameters.
        state: State of the checkpoint, replicated over all devices.
    """

    run: Run
    networks: Networks
    state: GANState

    def sample(
        self, num: int = 64, *, seed: int = 0, classes: Sequence[str] | None = None
    ) -> np.ndarray:
        """Draws images from the EMA generator.

        Args:
            num: Number of images, at least 1.
            seed: Seed of the latents.
            classes: Names (or numbers) of classes to draw in turn; None means all that the run was
                trained on.

        Returns:
            Images uint8 `[num, H, W, C]`.

        Raises:
            UserError: A class is unknown, or the generator takes images.
        """
        _check_takes_latents(self.run)
        sampler = Sampler(self.networks.generator, self.run.config)
        labels = np.resize(class_numbers(self.run, classes), num)
        return sampler(self.state, sampler.latents(seed, num), labels)


def restore(
    workdir: epath.PathLike, which: str = 'latest', require_latents: bool = False
) -> TrainedRun:
    """Reads the last whole checkpoint of the run in `workdir` onto every device.

    Args:
        workdir: of a training run.
        which: 'latest', or 'best' for the one that `config.evaluation.best` chose.
        require_latents: whether its generator must take latents.

    Raises:
        UserError: there is no run, none of its checkpoints is whole, or it takes images.
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
            f'{workdir} holds no best checkpoint: train with config.evaluation.every, or take '
            '--checkpoint=latest'
        )
    if state is None:
        raise UserError(f'{workdir} holds no checkpoint yet: train it first')
    return TrainedRun(run, networks, state)


def _check_takes_latents(run: Run) -> None:
    if degradations.takes_images(run.config):
        kind = run.config.input.kind
        raise UserError(
            f'The run has config.input.kind={kind!r}, so its generator takes images and not '
            f'latents: use --mode={MODES[kind]}'
        )


def merge_config(config: ConfigDict, overrides: ConfigDict | None) -> ConfigDict:
    """Return a run's config with the settings of tasks from the config that the user passed.

    These are the groups `evaluation`, `search` and `anomaly`, and `data_dir` if it is set. Neither
    argument is changed.

    Raises:
        UserError: `overrides` is no valid config.
    """
    if overrides is None:
        return config
    config_lib.validate(overrides)
    merged = config.copy_and_resolve_references().unlock()
    for group in config_lib.CHANGEABLE_GROUPS:
        merged[group] = overrides[group].copy_and_resolve_references()
    merged.data_dir = overrides.data_dir or config.data_dir
    return merged.lock()


def class_numbers(run: Run, classes: Sequence[str] | None) -> np.ndarray:
    """The labels of classes by name or number, int32; all that the run learnt (or 0) when None.

    Raises:
        UserError: the run knows no classes, or not such a one.
    """
    learnt = captions.trained_classes(run.config, run.num_classes)
    if classes is None:
        return learnt if run.config.conditional else np.zeros(1, np.int32)
    if not run.config.conditional:
        raise UserError(
            '--classes: the run was trained without classes; train one with '
            '--config.conditional=True'
        )
    if not classes:
        raise UserError('--classes is empty: name some, cat,dog say, or leave it out')
    names = list(run.class_names)
    found = []
    for given in classes:
        if given in names:
            found.append(names.index(given))
        elif given.isdecimal() and int(given) < len(names):
            found.append(int(given))
        else:
            close = difflib.get_close_matches(given, names, n=1)
            hint = f'did you mean {close[0]}? ' if close else ''
            raise UserError(f'--classes: {given!r} is unknown. {hint}There are {", ".join(names)}')
        if found[-1] not in learnt:
            raise UserError(
                f'--classes: the run learnt nothing of {given!r} (config.data.classes='
                f'{tuple(run.config.data.classes)}): leave it out'
            )
    return np.asarray(found, np.int32)

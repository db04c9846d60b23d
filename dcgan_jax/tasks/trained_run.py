"""What every task starts from: a run's config, networks and last state."""

import functools

import jax
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax import models, run_dir, train_state
from dcgan_jax.data import degradations
from dcgan_jax.models import Networks
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime import checkpoint, sharding
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.train_state import GANState

# What a run whose generator takes images is for.
MODES = {'low_resolution': 'super_resolve', 'masked': 'inpaint', 'grey': 'translate'}
FOLDERS = {'latest': checkpoint.FOLDER, 'best': checkpoint.BEST_FOLDER}


def restore(
    workdir: epath.PathLike, which: str = 'latest', of_latents: bool = False
) -> tuple[Run, Networks, GANState]:
    """Reads the last whole checkpoint of the run in `workdir` onto every device.

    Args:
        workdir: of a training run.
        which: 'latest', or 'best' for the one that `config.evaluation.best` chose.
        of_latents: whether its generator must take latents.

    Raises:
        UserError: there is no run, none of its checkpoints is whole, or it takes images.
    """
    workdir = run_dir.folder(workdir)
    run = run_dir.read(workdir)
    if of_latents and degradations.are_images(run.config):
        kind = run.config.input.kind
        raise UserError(
            f'{workdir} holds a run with config.input.kind={kind!r}, whose generator takes images '
            f'and not latents: use --mode={MODES[kind]}'
        )
    networks = models.build(run.config, run.image_shape, run.num_classes)
    shapes = jax.eval_shape(
        functools.partial(train_state.create, run.config, networks, run.image_shape)
    )
    like = sharding.abstract(sharding.create(), shapes)
    state, _ = checkpoint.restore_latest(workdir, like, FOLDERS[which])
    if state is None and which == 'best':
        raise UserError(
            f'{workdir} holds no best checkpoint: train with config.evaluation.every, or take '
            '--checkpoint=latest'
        )
    if state is None:
        raise UserError(f'{workdir} holds no checkpoint yet: train it first')
    return run, networks, state


def with_given(config: ConfigDict, given: ConfigDict | None) -> ConfigDict:
    """Return a run's config with the settings of tasks from the config that the user passed.

    These are the groups `evaluation`, `search` and `anomaly`, and `data_dir` if it is set. Neither
    argument is changed.

    Raises:
        UserError: `given` is no valid config.
    """
    if given is None:
        return config
    config_lib.validate(given)
    merged = config.copy_and_resolve_references().unlock()
    for group in config_lib.CHANGEABLE_GROUPS:
        merged[group] = given[group].copy_and_resolve_references()
    merged.data_dir = given.data_dir or config.data_dir
    return merged.lock()

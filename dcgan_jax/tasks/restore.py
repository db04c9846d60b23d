"""What every task starts from: a run's config, networks and last state."""

import functools

import jax
from etils import epath

from dcgan_jax import checkpoint, models, run_dir, train_state
from dcgan_jax import mesh as mesh_lib
from dcgan_jax.errors import UserError
from dcgan_jax.models import Networks
from dcgan_jax.run_dir import Run
from dcgan_jax.train_state import GANState

FOLDERS = {'latest': checkpoint.FOLDER, 'best': checkpoint.BEST_FOLDER}


def restore(workdir: epath.PathLike, which: str = 'latest') -> tuple[Run, Networks, GANState]:
    """Reads the last whole checkpoint of the run in `workdir` onto every device.

    `which` is 'latest', or 'best' for the one that `config.evaluation.best` chose.

    Raises:
        UserError: there is no run, or none of its checkpoints is whole.
    """
    workdir = run_dir.folder(workdir)
    run = run_dir.read(workdir)
    networks = models.build(*run)
    shapes = jax.eval_shape(
        functools.partial(train_state.create, run.config, networks, run.image_shape)
    )
    like = mesh_lib.abstract(mesh_lib.create(), shapes)
    state, _ = checkpoint.restore_latest(workdir, like, FOLDERS[which])
    if state is None and which == 'best':
        raise UserError(
            f'{workdir} holds no best checkpoint: train with config.evaluation.every, or take '
            '--checkpoint=latest'
        )
    if state is None:
        raise UserError(f'{workdir} holds no checkpoint yet: train it first')
    return run, networks, state

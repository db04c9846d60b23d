"""Deep convolutional GANs on CIFAR-10 in JAX and Flax.

Example:
    import dcgan_jax
    from dcgan_jax.configs import cifar10

    dcgan_jax.train(cifar10.get_config(), '/tmp/run')
    images = dcgan_jax.load('/tmp/run').sample(64)
"""

from __future__ import annotations

import typing

# JAX and other packages are imported on first use, because --help needs none of them.
if typing.TYPE_CHECKING:
    from etils import epath
    from ml_collections import ConfigDict

    from dcgan_jax.tasks.trained_run import TrainedRun
    from dcgan_jax.train_state import GANState


def train(config: ConfigDict, workdir: epath.PathLike) -> GANState:
    """Train or resume the run in `workdir`; see `training.train_and_evaluate`."""
    from dcgan_jax import training

    return training.train_and_evaluate(config, workdir)


def load(workdir: epath.PathLike, checkpoint: str = 'latest') -> TrainedRun:
    """Restore the run in `workdir`; see `TrainedRun`.

    Args:
        workdir: Folder of a training run.
        checkpoint: 'latest', or 'best' for the checkpoint selected by `config.evaluation.best`.

    Raises:
        dcgan_jax.runtime.errors.UserError: If there is no run or no intact checkpoint, or
            `checkpoint` is invalid.
    """
    from dcgan_jax.tasks import trained_run

    return trained_run.restore(workdir, checkpoint)

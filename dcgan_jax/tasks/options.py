"""Options and results of the tasks."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Options of a task, passed to its function `run(options: TaskOptions) -> TaskResult`.

    Attributes:
        workdir: Folder of the run.
        config: Config whose task fields replace the run's (see `merge_config`), or None.
        out: Folder for results; defaults to a folder of the task in `workdir`.
        num: Number of samples or images; None means the task's default.
        seed: Seed of the latents and of the choice of images.
        checkpoint: 'latest', or 'best' for the checkpoint selected by `config.evaluation.best`.
        images: Folder of user-supplied images, or an npz file; None means images of the data set.
        mask: Image file of the inpainting mask, whose white pixels are the missing region.
        classes: Names or indices of classes.
        prompt: Captions to generate images from.
        arithmetic: 'A-B+C', where each term is a comma-separated list of sample indices.
        format: Format of exported files: 'jax', 'onnx' or 'all'.
        weights: Data type of exported weights: 'float32' or 'int8'.
        host: Address that the demo binds to.
        port: Port of the demo.
    """

    workdir: epath.PathLike | None
    config: ConfigDict | None = None
    out: epath.PathLike | None = None
    num: int | None = None
    seed: int = 0
    checkpoint: str = 'latest'
    images: epath.PathLike | None = None
    mask: str | None = None
    classes: Sequence[str] | None = None
    prompt: Sequence[str] | None = None
    arithmetic: str | None = None
    format: str = 'jax'
    weights: str = 'float32'
    host: str = '127.0.0.1'
    port: int = 7860

    def __post_init__(self):
        """Check the numbers.

        Raises:
            UserError: If `num` or `seed` is not an integer in the allowed range.
        """
        if self.num is not None:
            check_integer('num', self.num, 1)
        check_integer('seed', self.seed, 0)


def check_integer(name: str, value: object, least: int) -> None:
    """Raise `UserError` unless a value is an integer from `least` to 2**32 - 1."""
    if not isinstance(value, int | np.integer) or not least <= value < 2**32:
        raise UserError(f'{name}={value!r} must be an integer from {least} to 2**32 - 1')


class TaskResult(NamedTuple):
    """Result of a task; `str` returns the text that the command line prints.

    Attributes:
        path: File or folder of the results; None if nothing was written.
        summary: The main results in one line, or ''.
    """

    path: epath.Path | None
    summary: str = ''

    def __str__(self) -> str:
        """Return the summary, if any, and the line `results: PATH`, if there is a path."""
        results = '' if self.path is None else f'results: {self.path}'
        return '\n'.join(filter(None, [self.summary, results]))

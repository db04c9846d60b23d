"""Options and results of the tasks."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import check_path

MAX_NUM = 1_000_000
MAX_SEED = 2**32 - 1
CHECKPOINTS = 'latest', 'best'
FORMATS = 'jax', 'onnx', 'all'
WEIGHTS = 'float32', 'int8'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Options of a task, passed to its function `run(options: TaskOptions) -> TaskResult`.

    Options that the docstring of a task does not list have no effect on its results.

    Attributes:
        workdir: Folder of the run.
        config: Config whose task fields replace the run's (see `merge_config`), or None.
        out: Folder for results; defaults to a folder of the task in `workdir`.
        num: Number of samples or images; None means the task's default. Must be None with `images`.
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
    mask: epath.PathLike | None = None
    classes: Sequence[str] | None = None
    prompt: Sequence[str] | None = None
    arithmetic: str | None = None
    format: str = 'jax'
    weights: str = 'float32'
    host: str = '127.0.0.1'
    port: int = 7860

    def __post_init__(self):
        """Check the options.

        Raises:
            UserError: If an option has an invalid value, or `num` is set together with `images`.
        """
        if self.num is not None:
            check_integer('num', self.num, 1, MAX_NUM)
        check_integer('seed', self.seed, 0, MAX_SEED)
        check_choice('checkpoint', self.checkpoint, CHECKPOINTS)
        check_choice('format', self.format, FORMATS)
        check_choice('weights', self.weights, WEIGHTS)
        check_sequence('classes', self.classes)
        check_sequence('prompt', self.prompt)
        for name in ('images', 'mask'):
            if getattr(self, name) is not None:
                check_path(getattr(self, name), name)
        if not isinstance(self.arithmetic, str | None):
            raise UserError(f"arithmetic={self.arithmetic!r} must be a string, e.g. '1,2-3,4+5'")
        if self.num is not None and self.images is not None:
            raise UserError(
                'num is not supported with images, because all of them are used: remove num'
            )


def check_integer(name: str, value: object, minimum: int, maximum: int) -> None:
    """Raise `UserError` unless a value is an integer in [minimum, maximum]."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or not minimum <= value <= maximum:
        raise UserError(f'{name}={value!r} must be an integer from {minimum:,} to {maximum:,}')


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise `UserError` unless a value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise UserError(f'{name}={value!r} must be one of {", ".join(map(repr, choices))}')


def check_sequence(name: str, value: object) -> None:
    """Raise `UserError` unless a value is None or a sequence other than a string."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence | None):
        raise UserError(f'{name}={value!r} must be a sequence, e.g. [{value!r}]')


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

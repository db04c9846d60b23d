"""What the command line asks of a task."""

import dataclasses

from etils import epath
from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Options of `run(options) -> str`, which every task has; it returns what to print.

    Attributes:
        workdir: Folder of the run.
        config: Config whose groups for tasks replace the run's; None means the run's own.
        out: Folder for results; None means the task's folder in `workdir`.
        num: Number of samples or images; None means the task's default.
        seed: Seed of latents and of what is drawn from the data set.
        checkpoint: 'latest' or 'best'.
        images: Folder of the user's images, or an npz file; None means the data set's.
        mask: Picture of what is missing, white where it is.
        classes: Names or numbers of classes.
        prompt: Sentences.
        arithmetic: 'A-B+C', where each is a comma-separated list of sample numbers.
    """

    workdir: epath.PathLike | None
    config: ConfigDict | None = None
    out: epath.PathLike | None = None
    num: int | None = None
    seed: int = 0
    checkpoint: str = 'latest'
    images: str | None = None
    mask: str | None = None
    classes: list[str] | None = None
    prompt: list[str] | None = None
    arithmetic: str | None = None

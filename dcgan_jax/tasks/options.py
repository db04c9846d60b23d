"""Options of the tasks."""

import dataclasses

from etils import epath
from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Options of a task, the argument of its `run(options) -> str`.

    Attributes:
        workdir: Folder of the run.
        config: Config whose task fields replace the run's (see `merge_config`), or None.
        out: Folder for results; defaults to a folder of the task in `workdir`.
        num: Number of samples or images; None means the task's default.
        seed: Seed of the latents and of the choice of images.
        checkpoint: 'latest' or 'best'.
        images: Folder of the user's images, or an npz file; None means images of the data set.
        mask: Image file of the inpainting mask: white pixels are missing.
        classes: Names or indices of classes.
        prompt: Captions to generate images from.
        arithmetic: 'A-B+C', where each term is a comma-separated list of sample indices.
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

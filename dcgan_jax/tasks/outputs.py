"""Folder of a task's results."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import run_dir
from dcgan_jax.data import sources
from dcgan_jax.runtime import containment
from dcgan_jax.tasks.options import TaskOptions


@dataclasses.dataclass(frozen=True)
class OutputFolder:
    """Folder of a task's results.

    Attributes:
        path: Path of the folder.
        check: Function to call before a file is written; raises `TrainingError` if the folder no
            longer belongs to the run.
    """

    path: epath.Path
    check: Callable[[], None] = lambda: None

    def file(self, name: str) -> epath.Path:
        """Return the path of a file that is written next, after calling `check`."""
        self.check()
        return self.path / name


def output_folder(
    options: TaskOptions, name: str, config: ConfigDict, check_workdir: Callable[[], None]
) -> OutputFolder:
    """Return the folder of a task's results, after checking that it can be written to.

    Args:
        options: Options of the task: `out`, or `workdir` if it is None, and `images`.
        name: Name of the default folder in `workdir`.
        config: Config of the run; results must not be written to the folder of its data set.
        check_workdir: See `workdir_guard.presence_check`. It is called before each file is written
            to a folder in the workdir, since the results would be those of another run.

    Raises:
        UserError: If the folder cannot be written to, or is inside a folder of input images or
            a checkpoint folder.
    """
    flag, out, remedy = '--out', options.out, 'use another folder'
    if out is None:
        flag, out = '--workdir', run_dir.folder(options.workdir) / name
        remedy = 'set --out to another folder'
    out = run_dir.folder(out, flag)
    inputs = {'--images': options.images} if options.images else {}
    inputs['config.data_dir'] = sources.input_folder(config.dataset, config.data_dir)
    if options.config is not None and options.config.data_dir:
        folder = sources.input_folder(config.dataset, options.config.data_dir)
        inputs['--config.data_dir'] = folder
    containment.check_outside(out, flag, inputs)
    run_dir.check_outside_checkpoints(out, flag)
    is_inside = options.workdir is not None and Path(os.path.realpath(out)).is_relative_to(
        os.path.realpath(run_dir.folder(options.workdir))
    )
    out = run_dir.check_writable(out, flag, remedy)
    return OutputFolder(out, check_workdir) if is_inside else OutputFolder(out)

"""A run's folder: `config.json` says what runs there; see also `checkpoint` and `writers`."""

import json
from typing import NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax.errors import UserError
from dcgan_jax.files import write_whole

CONFIG_FILE = 'config.json'


class Run(NamedTuple):
    """What `config.json` holds.

    Attributes:
        config: of the run.
        image_shape: (H, W, C) of its images.
    """

    config: ConfigDict
    image_shape: tuple[int, int, int]


def check_writable(workdir: epath.PathLike) -> epath.Path:
    """Makes `workdir` where it's not there, and tries to write in it.

    Raises:
        UserError: it's a file, or can't be made or written.
    """
    workdir = epath.Path(workdir)
    probe = workdir / '.write_test'
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b'')
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'--workdir={workdir} is not writable ({error.strerror or error}): choose another'
        ) from error
    return workdir


def enter(workdir: epath.Path, run: Run) -> None:
    """Claims `workdir` for `run`, or finds that the same run was there before and goes on.

    Raises:
        UserError: another run's config is there; it stays as it was.
    """
    if (workdir / CONFIG_FILE).exists():
        before = read(workdir)
        changed = config_lib.differences(before.config, run.config)
        if before.image_shape != run.image_shape:
            changed.append(f'image shape: {before.image_shape} -> {run.image_shape}')
        if changed:
            raise UserError(
                f'{workdir} holds a run of another config ({"; ".join(changed)}): '
                'choose another --workdir, or give that config to go on with its run'
            )
        logging.info('%s holds this run already: going on with it', workdir)
    content = {'config': run.config.to_dict(), 'image_shape': run.image_shape}
    write_whole(workdir / CONFIG_FILE, json.dumps(content, indent=2).encode())


def read(workdir: epath.PathLike) -> Run:
    """Reads `config.json`.

    Raises:
        UserError: there is none, or it can't be read as one.
    """
    path = epath.Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f'{workdir} holds no run (no {CONFIG_FILE}): give the --workdir of a training run'
        )
    try:
        content = json.loads(path.read_text())
        config = ConfigDict(_with_tuples(content['config']))
        height, width, channels = content['image_shape']
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} is damaged ({error!r}): restore it or choose another --workdir'
        ) from error
    config_lib.validate(config)
    return Run(config.lock(), (height, width, channels))


def _with_tuples(tree):
    """JSON has lists where configs have tuples."""
    if isinstance(tree, dict):
        return {name: _with_tuples(value) for name, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree

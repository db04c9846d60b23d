"""Validation of a run before anything is compiled or written."""

import contextlib
import functools
import os
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax import distillation, models, parallel, run_dir, train_state, warm_start
from dcgan_jax.data import captions, classes, image_source, sources
from dcgan_jax.evaluation import SampleScorer
from dcgan_jax.metrics import extractors
from dcgan_jax.run_description import Run
from dcgan_jax.runtime import checkpoint_folder, containment, jax_settings, multihost, sharding
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import absolute, resolve_path
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

# Config fields with the path of a file or folder.
_PATHS = (
    'data_dir', 'init_from', 'distill.teacher', 'evaluation.extractor', 'evaluation.reference',
    'evaluation.inception_weights',
)  # fmt: skip
_TIMEOUT_SECONDS = 60  # Network file systems may cache the contents of a folder for a minute.


class Setup(NamedTuple):
    """A validated run, ready to train.

    Attributes:
        run: Config, image shape and class names.
        workdir: Folder of the run.
        mesh: Mesh of all devices.
        source: The training split.
        scorer: Evaluator of samples; None if the run is not evaluated.
        sampler: Sampler of the generator.
        create: Function that returns the initial state.
        abstract_state: Abstract state with shardings.
    """

    run: Run
    workdir: epath.Path
    mesh: Mesh
    source: image_source.ImageSource
    scorer: SampleScorer | None
    sampler: Sampler
    create: Callable[[], GANState]
    abstract_state: GANState


def prepare(config: ConfigDict, workdir: epath.PathLike) -> Setup:
    """Validate a run without compiling or writing anything.

    Raises:
        UserError: If the config, the data set or the workdir is not valid for this run, if the
            processes of the run differ in them, or if another process fails.
    """
    jax_settings.check_devices()  # The collective of `raise_in_all` needs devices.
    with multihost.raise_in_all():
        mesh, workdir = _validate(config, workdir)
    fields = config_lib.flatten(config.to_dict())
    values = {f'config.{name}': value for name, value in fields.items() if name != 'data_dir'}
    _check_processes_agree(values | {'--workdir': os.fspath(absolute(workdir))})
    multihost.on_primary(run_dir.check_writable, workdir)
    with multihost.raise_in_all():
        setup = _create_setup(config, workdir, mesh)
    run = setup.run
    data = run.image_shape, run.class_names, sorted(run.data.items())
    _check_processes_agree(
        {'the data set': data, 'the existence of a run in --workdir': run_dir.exists(workdir)}
    )
    run = multihost.on_primary(run_dir.check_free, workdir, run) or run
    return setup._replace(run=run)


def _validate(config: ConfigDict, workdir: epath.PathLike) -> tuple[Mesh, epath.Path]:
    """Validate the config and the path of the workdir; return the mesh and the workdir."""
    config_lib.validate(config)
    for warning in config_lib.warnings(config):
        logging.warning(warning)
    mesh = sharding.create_mesh(config.batch_size)
    workdir = run_dir.folder(workdir)
    run_dir.check_outside_checkpoints(workdir, '--workdir')
    inputs = {'config.data_dir': sources.input_folder(config.dataset, config.data_dir)}
    containment.check_outside(workdir, '--workdir', inputs, run_dir.FOLDERS)
    return mesh, workdir


def _create_setup(config: ConfigDict, workdir: epath.Path, mesh: Mesh) -> Setup:
    """Open the data set, create the abstract state, and check the runs that this run depends on."""
    is_new = not checkpoint_folder.has_any(workdir)
    if is_new:
        checkpoint_folder.check_not_lost(workdir, checkpoint_folder.FOLDER)
        captions.check_installed(config)
    source = sources.open_split(config, config.data.split)
    config = make_paths_absolute(classes.replace_class_names(config, source.class_names))
    run = Run(config, source.image_shape, source.class_names, source.identity)
    networks = models.build(config, run.image_shape, run.num_classes)
    sampler = Sampler(networks.generator, config)
    create = functools.partial(train_state.create, config, networks, source.image_shape)
    abstract_state = parallel.create_abstract_state(create, mesh)
    scorer = sample_scorer(config, sampler) if config.evaluation.every else None
    if config.init_from and is_new:
        warm_start.check(run, abstract_state, mesh)
    if config.distill.teacher:
        distillation.check(run, workdir, abstract_state, mesh)
    return Setup(run, workdir, mesh, source, scorer, sampler, create, abstract_state)


def _check_processes_agree(values: dict[str, Any]) -> None:
    """Raise `UserError` if values differ between processes, whose states would diverge."""
    texts = {name: repr(value) for name, value in values.items()}
    if names := multihost.find_mismatches(texts):
        raise UserError(
            f'the processes of this run differ in {", ".join(names)}: pass the same config, '
            'data set and --workdir to each process, use a --workdir that all processes share, and '
            'run the same version of dcgan_jax'
        )


def check_shared(workdir: epath.Path) -> None:
    """Check that all processes can write to `workdir` and see the files of the primary process.

    Args:
        workdir: Existing folder of the run.

    Raises:
        UserError: If a process cannot write to the folder, or does not see a new file of the
            primary process within `_TIMEOUT_SECONDS`.
    """
    if jax.process_count() == 1:
        return
    # A new name, because network file systems cache the absence of files.
    probe = workdir / f'.shared_test_{multihost.from_primary(random.getrandbits(31))}'
    multihost.on_primary(probe.write_bytes, b'')
    is_visible = any(_exists_in_all(probe) for _ in range(_TIMEOUT_SECONDS))
    multihost.on_primary(probe.unlink)
    if not is_visible:
        raise UserError(
            f'--workdir={workdir} is not shared by all processes of this run: use a folder on a '
            'network file system, or in a bucket'
        )
    with multihost.raise_in_all():
        run_dir.check_writable(workdir)


def _exists_in_all(path: epath.Path) -> bool:
    """Return whether a file exists in all processes; sleep for one second if it does not."""
    exists = False
    with contextlib.suppress(OSError):
        exists = path.exists()
    if multihost.all_true(exists):
        return True
    time.sleep(1)
    return False


def make_paths_absolute(config: ConfigDict) -> ConfigDict:
    """Make the paths in a config absolute in place, because the working directory may change."""
    for name in _PATHS:
        *groups, field = name.split('.')
        group = functools.reduce(getattr, groups, config)
        if group[field] and group[field] not in extractors.INCEPTIONS:
            group[field] = str(absolute(resolve_path(group[field], f'config.{name}')))
    return config


def sample_scorer(config: ConfigDict, sampler: Sampler) -> SampleScorer:
    """Return an evaluator of samples against `config.evaluation.split`.

    Raises:
        UserError: If samples cannot be evaluated with `config.evaluation`.
    """
    source = sources.open_split(config, config.evaluation.split)
    scorer = SampleScorer(config, sampler, source)
    scorer.check(config.evaluation.num_samples)
    return scorer

"""Distillation: G learns to reproduce the images of a trained generator, the teacher.

For the same latents, the teacher's images are the targets of the content and feature matching
losses (`config.loss.content_weight` and `.feature_matching_weight`), to which the adversarial loss
on real images may be added (Aguinaldo et al. 2019, arXiv:1902.00159; Chang & Lu 2020,
arXiv:2009.13829). Feature matching may use the discriminator of the teacher's run.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dcgan_jax import models, parallel, pruning, run_description, run_dir, warm_start, weights
from dcgan_jax.data import captions, identity
from dcgan_jax.run_description import Run
from dcgan_jax.runtime import checkpoint_folder, multihost, sharding
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import read_bytes, write_atomic
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState, Teacher


def check(run: Run, workdir: epath.Path, abstract_state: GANState, mesh: Mesh) -> None:
    """Check that the teacher and the student map the same latents to images of the same shape.

    Args:
        run: The student's run.
        workdir: Folder of the student's run.
        abstract_state: Abstract state of the student.
        mesh: The mesh.

    Raises:
        UserError: If there is no teacher, or it is incompatible with the student.
    """
    config = run.config
    path = config.distill.teacher
    stored = workdir / run_dir.TEACHER_FILE
    is_resumed = checkpoint_folder.has_any(workdir)
    if is_resumed and stored.exists():
        teacher = _parse(stored, _read(stored))[0]
    else:
        with _name_lost_copy(stored, is_resumed):
            teacher = _read_run(config, abstract_state, mesh)
    names = ['input.kind', 'latent_dim', 'conditional']
    if captions.is_used(config):
        names += ['text.embedder', 'text.templates', 'text.scale']
    if config.distill.init == 'pruned':
        names += [f'generator.{name}' for name in pruning.EQUAL_FIELDS]
    pairs = {
        f'config.{name}': tuple(_field(each.config, name) for each in (teacher, run))
        for name in names
    }
    pairs['image shape'] = teacher.image_shape, run.image_shape
    if config.conditional:
        pairs['classes'] = teacher.class_names, run.class_names
    for name, (expected, found) in pairs.items():
        if expected != found:
            raise UserError(
                f'config.distill.teacher={path}: the teacher has {name}={expected!r}, and this '
                f'run has {found!r}: use the same value, or another teacher'
            )
    if config.conditional:
        setting = f'config.distill.teacher={path}'
        identity.check_related(setting, run.class_names, teacher.data, run.data)
    if config.conditional and not _classes(run) <= _classes(teacher):
        raise UserError(
            f'config.distill.teacher={path}: the teacher was not trained on all classes of '
            'this run: set config.data.classes to its classes, or use another teacher'
        )


def _read_run(config: ConfigDict, abstract_state: GANState, mesh: Mesh) -> Run:
    """Return the run of the teacher after checking that its D, if it is used, is suitable."""
    path = config.distill.teacher
    teacher = run_dir.read(run_dir.folder(path, 'config.distill.teacher'))
    if config.distill.discriminator == 'teacher':
        _check_discriminator(teacher.config, path)
        teacher_state = parallel.abstract_state_of(teacher, mesh)
        warm_start.check_network(
            f'config.distill.teacher={path}', 'discriminator', teacher_state, abstract_state
        )
    return teacher


def _check_discriminator(teacher: ConfigDict, path: str) -> None:
    """Raise `UserError` if the discriminator of the teacher's run was never trained."""
    if not warm_start.is_discriminator_trained(teacher):
        raise UserError(
            f"config.distill.discriminator='teacher': the discriminator of {path} was not trained "
            "(its config.discriminator_steps is 0); use 'random', or another teacher"
        )


def load(run: Run, workdir: epath.Path, mesh: Mesh) -> tuple[Teacher, bytes]:
    """Load the teacher from the student's run, or for a new run from the teacher's run.

    Args:
        run: The student's run.
        workdir: Folder of the student's run.
        mesh: The mesh, over which the teacher is replicated.

    Returns:
        The teacher, and the content of `run_dir.TEACHER_FILE`.

    Raises:
        UserError: If the teacher has no intact checkpoint, or a resumed run has lost its teacher.
    """
    stored = workdir / run_dir.TEACHER_FILE
    # Without a checkpoint, the run restarts; its teacher may have been trained further since.
    recorded = run_dir.read(workdir).teacher if checkpoint_folder.has_any(workdir) else ''
    if multihost.all_true(bool(recorded) and stored.exists()):
        content = _read(stored)
    else:
        with _name_lost_copy(stored, bool(recorded)):
            content = _serialize(run.config.distill.teacher, mesh)
    if recorded and digest(content) != recorded:
        raise UserError(
            f'{stored} is damaged or was removed, and config.distill.teacher='
            f'{run.config.distill.teacher} is not the teacher that this run was started with: '
            'restore the file'
        )
    teacher, variables = _parse(stored, content)
    generator = models.build(teacher.config, teacher.image_shape, teacher.num_classes).generator
    place = functools.partial(sharding.place, sharding=sharding.replicated(mesh))
    return Teacher(jax.tree.map(place, variables), generator.apply), content


@contextlib.contextmanager
def _name_lost_copy(copy: epath.Path, is_lost: bool) -> Iterator[None]:
    """Name the student's copy of the teacher in errors of reading the teacher's run.

    Args:
        copy: Path of the copy.
        is_lost: Whether the student is resumed without its copy.
    """
    try:
        yield
    except UserError as error:
        if not is_lost:
            raise
        raise UserError(
            f'{copy} is missing: restore it, or the run of the teacher ({error})'
        ) from error


def copy_discriminator(state: GANState, config: ConfigDict, mesh: Mesh) -> GANState:
    """Return the initial state with the parameters and statistics of D of the teacher's run.

    Raises:
        UserError: If the teacher has no intact checkpoint.
    """
    _, teacher = _restore(config.distill.teacher, mesh)
    copied = warm_start.copy_network(teacher.discriminator, state.discriminator)
    return state.replace(discriminator=copied)


def digest(content: bytes) -> str:
    """Return the SHA-256 of a teacher, which identifies it in `config.json`."""
    return hashlib.sha256(content).hexdigest()


def write(workdir: epath.Path, content: bytes) -> None:
    """Write the teacher to the folder of the student's run, unless it is already there."""
    path = workdir / run_dir.TEACHER_FILE
    if not path.exists() or _read(path) != content:
        write_atomic(path, content)


def _read(path: epath.Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror}): grant read permission, or restore the file'
        ) from error


def _classes(run: Run) -> set[int]:
    """Return the indices of the classes that a run is trained on."""
    return set(run.config.data.classes or range(run.num_classes))


def _field(config: ConfigDict, name: str) -> Any:
    return functools.reduce(lambda group, part: group[part], name.split('.'), config)


def _restore(folder: epath.PathLike, mesh: Mesh) -> tuple[Run, GANState]:
    """Return the run in `folder` and the state of its last checkpoint."""
    run = run_dir.read(run_dir.folder(folder, 'config.distill.teacher'))
    state, _ = run_dir.restore(folder, run, parallel.abstract_state_of(run, mesh))
    if state is None:
        raise UserError(f'config.distill.teacher={folder} has no checkpoint: train that run first')
    return run, state


def _serialize(folder: epath.PathLike, mesh: Mesh) -> bytes:
    """Return the content of `TEACHER_FILE` for the last checkpoint of the run in `folder`."""
    run, state = _restore(folder, mesh)
    logging.info('distilling from %s at step %d', folder, int(state.step))
    generator = models.build(run.config, run.image_shape, run.num_classes).generator
    variables = Sampler(generator, run.config).variables(state)
    metadata = {'step': int(state.step), **run_description.describe(run)}
    return weights.serialize(jax.device_get(variables), metadata)


def _parse(path: epath.Path, content: bytes) -> tuple[Run, Any]:
    try:
        variables, metadata = weights.deserialize(content)
        del metadata['step']
        return run_description.parse(metadata), variables
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(
            f'{path} is damaged ({error}): restore it, or delete it if the run of the teacher has '
            'not changed'
        ) from error

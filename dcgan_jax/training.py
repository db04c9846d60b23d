"""Training of a run, from the last checkpoint to the last step."""

import contextlib
from collections.abc import Callable
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import distillation, parallel, pruning, run_dir, train_state, warm_start
from dcgan_jax.data import input_pipeline
from dcgan_jax.run_setup import Setup, check_shared, prepare
from dcgan_jax.runtime import checkpoint, multihost, nonfinite, preemption, workdir_guard
from dcgan_jax.runtime.errors import NonFiniteError, StoppedError
from dcgan_jax.train_state import GANState, Teacher
from dcgan_jax.train_step import Metrics
from dcgan_jax.training_loop import TrainingLoop


def train_and_evaluate(config: ConfigDict, workdir: epath.PathLike) -> GANState:
    """Train a GAN, or resume from the last checkpoint.

    Args:
        config: Config of the run, see `configs/default.py`.
        workdir: Folder of the run, in which `config.json`, `checkpoints/`, `samples/` and
            TensorBoard event files are written; with `config.evaluation.every` also `evaluation/`
            and `best_checkpoint/`.

    Returns:
        The state after `config.num_steps` steps.

    Raises:
        UserError: If the config, the data set, `workdir` or its checkpoints are invalid.
        TrainingError: If a loss is not finite and `config.on_nonfinite` does not handle it, or if a
            checkpoint or an event file cannot be written. Earlier checkpoints are kept.
        StoppedError: If SIGTERM or SIGINT was received. The state is saved; call again to resume.
    """
    setup = prepare(config, workdir)
    lock = multihost.primary_context(workdir_guard.lock(setup.workdir))
    with lock as check_workdir, preemption.watch() as watcher:
        # Another process may have started a run in this folder since `prepare`.
        run = multihost.on_primary(run_dir.check_free, setup.workdir, setup.run)
        check_shared(setup.workdir)
        setup = setup._replace(run=run or setup.run)
        while True:
            rollbacks = multihost.from_primary(
                multihost.on_primary(nonfinite.count_rollbacks, setup.workdir) or 0
            )
            seed = nonfinite.seed_after_rollbacks(config.seed, rollbacks)
            if rollbacks:
                logging.warning(
                    'number of rollbacks: %d (see %s); the seed of batches, latents and dropout '
                    'is %d',
                    *(rollbacks, nonfinite.FILE, seed),
                )
            try:
                return train(setup, seed, watcher, check_workdir)
            except NonFiniteError as error:
                if config.on_nonfinite != 'rollback' or rollbacks >= config.max_rollbacks:
                    raise
                logging.warning('%s; rolling back with a different seed', error)
                multihost.on_primary(nonfinite.add_rollback, setup.workdir, str(error))


def train(
    setup: Setup,
    seed: int,
    watcher: preemption.PreemptionWatcher,
    check_workdir: Callable[[], None] | None,
) -> GANState:
    """Train from the last checkpoint, or from the initial state, to the last step.

    Args:
        setup: The run.
        seed: Seed of batches, latents and dropout, see `nonfinite.seed_after_rollbacks`.
        watcher: Records SIGTERM and SIGINT.
        check_workdir: See `workdir_guard.lock`; None in all processes but the primary one.

    Returns:
        The final state; see `train_and_evaluate`, also for the errors raised.
    """
    config, workdir = setup.run.config, setup.workdir
    setup, teacher, teacher_file = load_teacher(setup)
    state, damaged = restore_or_create(setup, teacher)
    start = int(state.step)
    logging.info('%s: training from step %d to %d', workdir, start, max(start, config.num_steps))
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    ranges = parallel.CallRanges(start, config.num_steps, parallel.steps_per_call(config))
    split, batches = input_pipeline.create_input_iter(seeded, setup.mesh, setup.source, ranges)
    # The workdir is changed only now, after the state has been restored and the images have been
    # read. The config is first, because `run_dir.check_free` rejects a teacher file without a run.
    multihost.on_primary(check_workdir)
    multihost.on_primary(run_dir.write, workdir, setup.run)
    multihost.on_primary(checkpoint.move_damaged, workdir, damaged)
    if teacher is not None:
        multihost.on_primary(distillation.write, workdir, teacher_file)
    train_call = parallel.train_call(
        seeded, setup.mesh, setup.abstract_state, setup.run.image_shape
    )

    def update(state: GANState, batch: Any) -> tuple[GANState, Metrics]:
        return train_call(state, split, batch, teacher)

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(batches))
        loop = TrainingLoop(stack, setup, ranges, watcher, check_workdir)
        loop.describe(state)
        state, stopped = loop.run(state, update, batches)
    if stopped:
        raise StoppedError(
            watcher.signal,
            f'{watcher.signal.name}: stopped at step {int(state.step)} after saving a checkpoint; '
            'rerun the same command to resume',
        )
    logging.info('%s: finished at step %d', workdir, int(state.step))
    return state


def load_teacher(setup: Setup) -> tuple[Setup, Teacher | None, bytes]:
    """Return the setup with the teacher's digest, the teacher, and its file; see `distillation`."""
    if not setup.run.config.distill.teacher:
        return setup, None, b''
    teacher, content = distillation.load(setup.run, setup.workdir, setup.mesh)
    run = setup.run._replace(teacher=distillation.digest(content))
    return setup._replace(run=run), teacher, content


def restore_or_create(setup: Setup, teacher: Teacher | None) -> tuple[GANState, list[int]]:
    """Return the state of the last intact checkpoint, or the initial state.

    Returns:
        The state, and the steps of damaged checkpoints.
    """
    state, damaged = run_dir.restore(setup.workdir, setup.run, setup.abstract_state)
    if state is None:
        state = parallel.initial_state(setup.create, setup.abstract_state)
        state = train_state.add_captions(
            state, setup.abstract_state, setup.run.config, setup.source.class_names
        )
        if setup.run.config.init_from:
            state = warm_start.initialize(state, setup.run.config, setup.mesh)
        if setup.run.config.distill.init == 'pruned':
            state = pruning.initialize(state, teacher.variables)
        if setup.run.config.distill.discriminator == 'teacher':
            state = distillation.copy_discriminator(state, setup.run.config, setup.mesh)
    return state, damaged

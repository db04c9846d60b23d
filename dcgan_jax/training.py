"""Training loop with checkpoints, sample grids and evaluation."""

import contextlib
import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax import config as config_lib
from dcgan_jax import models, parallel, run_dir, train_state, warm_start
from dcgan_jax.data import captions, classes, image_source, images, input_pipeline, sources
from dcgan_jax.evaluation import SampleScorer, TrainingEvaluator
from dcgan_jax.hooks import Call, Hook
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime import (
    checkpoint,
    containment,
    multihost,
    nonfinite,
    preemption,
    sharding,
    writers,
)
from dcgan_jax.runtime.clu_no_tf import metric_writers, parameter_overview, periodic_actions
from dcgan_jax.runtime.errors import NonFiniteError, StoppedError
from dcgan_jax.runtime.files import absolute
from dcgan_jax.runtime.metric_log import MetricLog
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import NETWORKS, GANState

GRID_SIZE = 64  # Images in a sample grid.


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
    lock = multihost.primary_context(run_dir.lock(setup.workdir))
    with lock, preemption.watch() as watcher:
        # Another process may have started a run in this folder since `prepare`.
        run = multihost.on_primary(run_dir.check_free, setup.workdir, setup.run)
        setup = setup._replace(run=run or setup.run)
        while True:
            rollbacks = nonfinite.read_rollbacks(setup.workdir)
            seed = nonfinite.seed_after_rollbacks(config.seed, len(rollbacks))
            try:
                return train(setup, seed, watcher)
            except NonFiniteError as error:
                if config.on_nonfinite != 'rollback' or len(rollbacks) >= config.max_rollbacks:
                    raise
                logging.warning('%s; rolling back, with another seed', error)
                multihost.on_primary(nonfinite.add_rollback, setup.workdir, str(error))


class Setup(NamedTuple):
    """A validated run, ready to train.

    Attributes:
        run: Config, image shape and class names.
        workdir: Folder of the run.
        mesh: Mesh of all devices.
        source: The training split.
        scorer: Evaluates samples; None if the run is not evaluated.
        sampler: Samples from the generator.
        create: Function that returns the initial state.
        like: Abstract state with shardings.
    """

    run: Run
    workdir: epath.Path
    mesh: Mesh
    source: image_source.ImageSource
    scorer: SampleScorer | None
    sampler: Sampler
    create: Callable[[], GANState]
    like: GANState


def prepare(config: ConfigDict, workdir: epath.PathLike) -> Setup:
    """Validate a run without compiling or writing anything.

    Raises:
        UserError: If the run is not possible.
    """
    config_lib.validate(config)
    for warning in config_lib.warnings(config):
        logging.warning(warning)
    mesh = sharding.create_mesh(config.batch_size)
    workdir = run_dir.folder(workdir)
    if config.dataset == 'folder':
        inputs = {'config.data_dir': config.data_dir}
        containment.check_outside(workdir, '--workdir', inputs, run_dir.FOLDERS)
    multihost.on_primary(run_dir.check_writable, workdir)
    if not (workdir / checkpoint.FOLDER).exists():
        captions.check_installed(config)
    source = sources.open_split(config, config.data.split)
    config = classes.replace_class_names(config, source.class_names)
    if config.init_from:
        config.init_from = str(absolute(run_dir.folder(config.init_from, 'config.init_from')))
    run = Run(config, source.image_shape, source.class_names, source.identity)
    networks = models.build(config, run.image_shape, run.num_classes)
    sampler = Sampler(networks.generator, config)
    create = functools.partial(train_state.create, config, networks, source.image_shape)
    like = parallel.abstract_state(create, mesh)
    scorer = sample_scorer(config, sampler) if config.evaluation.every else None
    if config.init_from and not (workdir / checkpoint.FOLDER).exists():
        warm_start.check(run, like, mesh)
    run = multihost.on_primary(run_dir.check_free, workdir, run) or run
    return Setup(run, workdir, mesh, source, scorer, sampler, create, like)


def train(setup: Setup, seed: int, watcher: preemption.PreemptionWatcher) -> GANState:
    """Train from the last checkpoint, or from the initial state, to the last step.

    Args:
        setup: The run.
        seed: Seed of batches, latents and dropout, see `nonfinite.seed_after_rollbacks`.
        watcher: Records SIGTERM and SIGINT.

    Returns:
        See `train_and_evaluate`, also for the errors raised.
    """
    config, workdir = setup.run.config, setup.workdir
    state = restore_or_create(setup)
    start = int(state.step)
    logging.info('%s: training from step %d to %d', workdir, start, max(start, config.num_steps))
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    ranges = parallel.CallRanges(start, config.num_steps, parallel.steps_per_call(config))
    split, batches = input_pipeline.create_input_iter(seeded, setup.mesh, setup.source, ranges)
    multihost.on_primary(run_dir.write, workdir, setup.run)  # State and images are accepted.
    train_call = parallel.train_call(seeded, setup.mesh, setup.like, setup.run.image_shape)

    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(contextlib.closing(batches))
        writer = enter(writers.open_writer(workdir, start))
        described = run_dir.describe(setup.run)
        checkpoints = checkpoint.Checkpoints(workdir, config.keep_checkpoints, described)
        enter(contextlib.closing(checkpoints))
        grids = SampleGrids(setup.sampler, config.seed, setup.source, workdir, writer)
        hooks = [
            Hook(grids.draw, config.sample_every),
            Hook(checkpoints.save, config.checkpoint_every, on_stop=True),
        ]
        evaluate = None
        if setup.scorer is not None:
            best = checkpoint.Checkpoints(workdir, 1, described, checkpoint.BEST_FOLDER)
            enter(contextlib.closing(best))
            evaluate = TrainingEvaluator(config, setup.scorer, workdir, writer, best, watcher)
            hooks.append(Hook(evaluate, config.evaluation.every))
        bar = enter(tqdm(total=config.num_steps, initial=start, unit='step', disable=None))
        check_present = multihost.on_primary(run_dir.presence_check, workdir)
        log = MetricLog(config.batch_size, checkpoints.latest_step, config.max_skipped)
        callbacks = create_callbacks(config, workdir, writer, ranges)
        describe(config, state, writer)

        stopped = False
        try:
            previous = Call(start - parallel.steps_per_call(config), start, config.num_steps)
            if evaluate is not None and start > 0 and previous.is_due(config.evaluation.every):
                evaluate.evaluate_if_missing(state)
            # The devices are one call ahead of the host, which logs, saves and samples.
            for (first, end), batch in zip(ranges, batches, strict=True):
                call = Call(first, end, config.num_steps)
                state, metrics = train_call(state, split, batch)
                log.add(first, end, metrics)
                bar.update(end - first)
                for callback in callbacks:
                    callback(end)
                stopped = watcher.should_stop() and end < config.num_steps
                if stopped or call.is_due(config.log_every, config.checkpoint_every):
                    multihost.on_primary(check_present)
                    # Raises NonFiniteError before a non-finite state is saved.
                    scalars = log.fetch()
                    writer.write_scalars(end, scalars)
                    bar.set_postfix({name: scalars.get(f'{name}/loss') for name in NETWORKS})
                with log.paused():
                    for hook in hooks:
                        if hook.is_due(call, stopped):
                            hook.run(state)
                if stopped:
                    break
        except preemption.Preempted:  # During an evaluation.
            stopped = True
            if checkpoints.latest_step() != int(state.step):
                checkpoints.save(state)
        # `latest_step` would differ between processes while a checkpoint is being written.
        if int(state.step) == 0:
            checkpoints.save(state)
        has_grid = grid_path(workdir, int(state.step)).exists()
        if not stopped and not multihost.all_true(has_grid):
            grids.draw(state)
    if stopped:
        raise StoppedError(
            watcher.signal,
            f'{watcher.signal.name}: stopped at step {int(state.step)} after saving a checkpoint; '
            'rerun the same command to resume',
        )
    logging.info('%s: finished at step %d', workdir, int(state.step))
    return state


def restore_or_create(setup: Setup) -> GANState:
    """Return the state of the last intact checkpoint, or the initial state."""
    state, damaged = checkpoint.restore_latest(setup.workdir, setup.like)
    multihost.on_primary(checkpoint.move_damaged, setup.workdir, damaged)
    if state is None:
        state = parallel.initial_state(setup.create, setup.like)
        state = train_state.add_captions(
            state, setup.like, setup.run.config, setup.source.class_names
        )
        if setup.run.config.init_from:
            state = warm_start.initialize(state, setup.run.config, setup.mesh)
    return state


def sample_scorer(config: ConfigDict, sampler: Sampler) -> SampleScorer:
    """Return an evaluator of samples against `config.evaluation.split`.

    Raises:
        UserError: If an evaluation is not possible.
    """
    source = sources.open_split(config, config.evaluation.split)
    scorer = SampleScorer(config, sampler, source)
    scorer.check(config.evaluation.num_samples)
    return scorer


def create_callbacks(
    config: ConfigDict,
    workdir: epath.Path,
    writer: metric_writers.MetricWriter,
    ranges: parallel.CallRanges,
) -> list[Callable[[int], Any]]:
    """Return callbacks of the step that report progress and, if configured, profile calls 3-6."""
    actions = [
        periodic_actions.ReportProgress(
            num_train_steps=config.num_steps, writer=writer, every_secs=30.0
        )
    ]
    if config.profile and len(ranges) < 3:
        logging.warning('no profile: the run has fewer than 3 calls')
    elif config.profile:
        first, last = ranges[1][1], ranges[min(5, len(ranges) - 1)][1]
        actions.append(
            periodic_actions.Profile(
                logdir=workdir,
                first_profile=first,
                num_profile_steps=last - first,
                profile_duration_ms=None,
                every_secs=None,
            )
        )
    return actions


def describe(config: ConfigDict, state: GANState, writer: metric_writers.MetricWriter) -> None:
    """Write the config and a table of the parameters to TensorBoard, and the table to the log."""
    writer.write_hparams(config_lib.flatten(config.to_dict()))
    texts = {'config': f'```json\n{json.dumps(config.to_dict(), indent=2)}\n```'}
    for name in NETWORKS:
        params = getattr(state, name).params
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        logging.info('%s:\n%s', name, overview)
        texts[name] = f'```\n{overview}\n```'
    writer.write_texts(int(state.step), texts)


class SampleGrids:
    """Writes grids of images from the EMA generator, with the same inputs at every step.

    If the inputs are images, each is shown next to its result.
    """

    def __init__(
        self,
        sampler: Sampler,
        seed: int,
        source: image_source.ImageSource,
        workdir: epath.Path,
        writer: metric_writers.MetricWriter,
    ):
        """Sample the inputs.

        Args:
            sampler: Sampler of the generator.
            seed: Seed of the inputs.
            source: Split from which inputs that are images are drawn.
            workdir: Folder of the run; grids are written to `samples/STEP.png`.
            writer: TensorBoard writer of the grids.
        """
        self._sampler = sampler
        self._inputs = sampler.inputs(seed, GRID_SIZE, source)
        self._workdir = workdir
        self._writer = writer

    def draw(self, state: GANState) -> None:
        """Write the grid of a state."""
        step = int(state.step)
        pixels = self._sampler(state, self._inputs)
        if self._inputs.ndim > 2:
            known = np.asarray(images.to_uint8(self._inputs[..., :-1]))
            pixels = np.stack([known, pixels], axis=1).reshape(-1, *pixels.shape[1:])
        picture = images.grid(pixels)
        self._writer.write_images(step, {'samples': picture})
        if multihost.is_primary():
            images.write_png(grid_path(self._workdir, step), picture)


def grid_path(workdir: epath.PathLike, step: int) -> epath.Path:
    """Return the path of the sample grid of a step."""
    return epath.Path(workdir) / run_dir.SAMPLES_FOLDER / f'{step:08d}.png'

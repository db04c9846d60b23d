"""`train_and_evaluate(config, workdir)`: the whole run, from data set to pictures."""

import contextlib
import functools
import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax import config as config_lib
from dcgan_jax import models, parallel, run_dir, train_state
from dcgan_jax.data import captions, images, input_pipeline, sources
from dcgan_jax.evaluation import SampleScorer, TrainingEvaluator
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime import checkpoint, multihost, nonfinite, preemption, sharding, writers
from dcgan_jax.runtime.clu_no_tf import metric_writers, parameter_overview, periodic_actions
from dcgan_jax.runtime.errors import NonFiniteError, StoppedError
from dcgan_jax.runtime.metric_log import MetricLog
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import NETWORKS, GANState

GRID_SIZE = 64  # Pictures in a grid, always of the same latents.


def train_and_evaluate(config: ConfigDict, workdir: epath.PathLike) -> GANState:
    """Trains the GAN of `config` in `workdir`, from its last checkpoint if it has one.

    Args:
        config: see `configs/default.py`.
        workdir: gets `config.json`, `checkpoints/`, `samples/` and TensorBoard's event files; where
            `config.evaluation.every`, `evaluation/` and `best_checkpoint/` too.

    Returns:
        The state after `config.num_steps` steps.

    Raises:
        UserError: config, data set, workdir or its checkpoints don't allow the run.
        TrainingError: a loss was not finite and `config.on_nonfinite` has no way on, or a
            checkpoint or an event file can't be written; earlier checkpoints stay.
        StoppedError: SIGTERM or SIGINT came; the state was saved, and the same call goes on there.
    """
    prepared = prepare(config, workdir)
    alone = multihost.primary_context(run_dir.alone(prepared.workdir))
    with alone, preemption.watch() as watcher:
        multihost.on_primary(run_dir.enter, prepared.workdir, prepared.run)
        while True:
            rollbacks = nonfinite.read_rollbacks(prepared.workdir)
            try:
                return train(
                    prepared, nonfinite.seed_after_rollbacks(config.seed, len(rollbacks)), watcher
                )
            except NonFiniteError as error:
                if config.on_nonfinite != 'rollback' or len(rollbacks) >= config.max_rollbacks:
                    raise
                logging.warning('%s; from there on with other random numbers', error)
                multihost.on_primary(nonfinite.add_rollback, prepared.workdir, str(error))


class Prepared(NamedTuple):
    """A run that nothing speaks against.

    Attributes:
        run: its config, and what its images are.
        workdir: is its own.
        mesh: over all devices.
        source: the training split.
        scorer: of its states; None if they are not evaluated.
        sampler: from its generator.
        create: makes the state of step 0.
        like: the shapes of a state, and where its arrays live.
    """

    run: Run
    workdir: epath.Path
    mesh: Mesh
    source: sources.ImageSource
    scorer: SampleScorer | None
    sampler: Sampler
    create: Callable[[], GANState]
    like: GANState


def prepare(config: ConfigDict, workdir: epath.PathLike) -> Prepared:
    """Refuses what can't work (`UserError`) before anything is compiled; writes nothing."""
    config_lib.validate(config)
    for warning in config_lib.warnings(config):
        logging.warning(warning)
    mesh = sharding.create_mesh(config.batch_size)
    workdir = run_dir.folder(workdir)
    multihost.on_primary(run_dir.check_writable, workdir)
    if not (workdir / checkpoint.FOLDER).exists():
        captions.check_installed(config)
    source = sources.open_split(config, config.data.split)
    run = Run(config, source.image_shape, source.class_names)
    networks = models.build(config, run.image_shape, run.num_classes)
    sampler = Sampler(networks.generator, config)
    create = functools.partial(train_state.create, config, networks, source.image_shape)
    like = parallel.abstract_state(create, mesh)
    scorer = sample_scorer(config, sampler) if config.evaluation.every else None
    multihost.on_primary(run_dir.check_free, workdir, run)
    return Prepared(run, workdir, mesh, source, scorer, sampler, create, like)


def train(prepared: Prepared, seed: int, watcher: preemption.PreemptionWatcher) -> GANState:
    """Goes on from the last checkpoint, or from step 0, to the last step.

    Args:
        prepared: the run.
        seed: of batches, latents and dropout; see `nonfinite.seed_after_rollbacks`.
        watcher: to stop early.

    Returns:
        See `train_and_evaluate`, also for what it raises.
    """
    run, workdir, mesh, source, scorer, sampler, create, like = prepared
    config = run.config
    # 1. The state: the last checkpoint's, or that of step 0.
    state, damaged = checkpoint.restore_latest(workdir, like)
    multihost.on_primary(checkpoint.move_damaged, workdir, damaged)
    if state is None:
        state = parallel.initial_state(create, like)
        state = train_state.add_captions(state, like, config, source.class_names)
    start = int(state.step)
    logging.info('%s: from step %d to %d', workdir, start, max(start, config.num_steps))

    # 2. The data and the compiled program.
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    ranges = parallel.CallRanges(start, config.num_steps, parallel.steps_per_call(config))
    split, batches = input_pipeline.create_input_iter(seeded, mesh, source, ranges)
    train_call = parallel.train_call(seeded, mesh, like, run.image_shape)

    # 3. The loop. The devices are one call ahead of the host, which logs, saves and draws.
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(batches))
        writer = stack.enter_context(writers.open_writer(workdir, start))
        described = run_dir.describe(run)
        checkpoints = checkpoint.Checkpoints(workdir, config.keep_checkpoints, described)
        stack.enter_context(contextlib.closing(checkpoints))
        evaluate = None
        if scorer is not None:
            best = checkpoint.Checkpoints(workdir, 1, described, checkpoint.BEST_FOLDER)
            stack.enter_context(contextlib.closing(best))
            evaluate = TrainingEvaluator(config, scorer, workdir, writer, best, watcher)
        bar = stack.enter_context(
            tqdm(total=config.num_steps, initial=start, unit='step', disable=None)
        )
        describe(config, state, writer)
        grids = SampleGrids(sampler, config.seed, source, workdir, writer)
        log = MetricLog(config.batch_size, checkpoints.latest_step, config.max_skipped)
        progress = periodic_actions.ReportProgress(
            num_train_steps=config.num_steps, writer=writer, every_secs=30.0
        )
        profile = profiler(workdir, ranges) if config.profile else None
        stop = False
        if evaluate is not None and start > 0:
            before = start - parallel.steps_per_call(config)
            if is_due(before, start, config.num_steps, config.evaluation.every):
                stop = not evaluate.evaluate_if_missing(state)
        for (first, end), batch in zip(ranges, batches, strict=True):
            if stop:
                break
            state, metrics = train_call(state, split, batch)
            log.add(first, end, metrics)
            bar.update(end - first)
            progress(end)
            if profile is not None:
                profile(end)

            stop = watcher.should_stop() and end < config.num_steps
            due = functools.partial(is_due, first, end, config.num_steps)
            if due(config.log_every) or due(config.checkpoint_every) or stop:
                scalars = log.fetch()
                writer.write_scalars(end, scalars)
                bar.set_postfix({name: scalars.get(f'{name}/loss') for name in NETWORKS})
            with log.paused():
                if due(config.sample_every):
                    grids.draw(state)
                if due(config.checkpoint_every) or stop:
                    checkpoints.save(state)
                if not stop and evaluate is not None and due(config.evaluation.every):
                    stop = not evaluate(state)
                    if stop and not due(config.checkpoint_every):
                        checkpoints.save(state)
        has_grid = grid_path(workdir, int(state.step)).exists()
        if not stop and not multihost.all_true(has_grid):
            grids.draw(state)
    if stop:
        raise StoppedError(
            watcher.signal,
            f'{watcher.signal.name}: stopped at step {int(state.step)}, which is saved; '
            'the same command goes on there',
        )
    logging.info('%s: done at step %d', workdir, int(state.step))
    return state


def sample_scorer(config: ConfigDict, sampler: Sampler) -> SampleScorer:
    """Compares with `config.evaluation.split`; refuses what could not be measured later."""
    source = sources.open_split(config, config.evaluation.split)
    scorer = SampleScorer(config, sampler, source)
    scorer.check(config.evaluation.num_samples)
    return scorer


def is_due(first: int, end: int, last: int, every: int) -> bool:
    """Whether a call over steps (first, end] ended at `last` or reached a multiple of `every`."""
    return end == last or (every > 0 and end // every > first // every)


def profiler(workdir: epath.Path, ranges: parallel.CallRanges) -> periodic_actions.Profile | None:
    """Profiles calls 3 to 6, or those there are, into `workdir`; None if a run is too short."""
    if len(ranges) < 3:
        logging.warning('no profile: the run has fewer than 3 calls')
        return None
    first, last = ranges[1][1], ranges[min(5, len(ranges) - 1)][1]
    return periodic_actions.Profile(
        logdir=workdir,
        first_profile=first,
        num_profile_steps=last - first,
        profile_duration_ms=None,
        every_secs=None,
    )


def describe(config: ConfigDict, state: GANState, writer: metric_writers.MetricWriter) -> None:
    """Writes the config and both networks' parameters to TensorBoard, the latter to the log too."""
    writer.write_hparams(config_lib.flatten(config.to_dict()))
    texts = {'config': f'```json\n{json.dumps(config.to_dict(), indent=2)}\n```'}
    for name in NETWORKS:
        params = getattr(state, name).params
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        logging.info('%s:\n%s', name, overview)
        texts[name] = f'```\n{overview}\n```'
    writer.write_texts(int(state.step), texts)


class SampleGrids:
    """Grids of pictures from the averaged generator, of the same inputs at every step.

    Where inputs are images, each stands before its picture.
    """

    def __init__(
        self,
        sampler: Sampler,
        seed: int,
        source: sources.ImageSource,
        workdir: epath.Path,
        writer: metric_writers.MetricWriter,
    ):
        """Draws into `workdir/samples/STEP.png` and to `writer`, from inputs of `seed`."""
        self._sampler = sampler
        self._inputs = sampler.inputs(seed, GRID_SIZE, source)
        self._workdir = workdir
        self._writer = writer

    def draw(self, state: GANState) -> None:
        """Writes the grid of a state."""
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
    """Where the grid of `step` stands."""
    return epath.Path(workdir) / run_dir.SAMPLES_FOLDER / f'{step:08d}.png'

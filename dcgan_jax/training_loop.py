"""Loop over the calls of a run, with logging, sample grids, checkpoints and evaluation."""

import contextlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from absl import logging
from tqdm import tqdm

from dcgan_jax import config as config_lib
from dcgan_jax import parallel, run_description
from dcgan_jax.evaluation import TrainingEvaluator
from dcgan_jax.hooks import Call, Hook
from dcgan_jax.run_setup import Setup
from dcgan_jax.runtime import (
    checkpoint,
    checkpoint_folder,
    multihost,
    preemption,
    writers,
)
from dcgan_jax.runtime.clu_no_tf import parameter_overview, periodic_actions
from dcgan_jax.runtime.metric_log import MetricLog
from dcgan_jax.sample_grids import SampleGrids, grid_path
from dcgan_jax.train_state import NETWORKS, GANState
from dcgan_jax.train_step import Metrics

Update = Callable[[GANState, Any], tuple[GANState, Metrics]]


class TrainingLoop:
    """Calls of the compiled update and the hooks between them."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        setup: Setup,
        ranges: parallel.CallRanges,
        watcher: preemption.PreemptionWatcher,
        check_workdir: Callable[[], None] | None,
    ):
        """Open the writer, the checkpoints and the progress bar.

        Args:
            stack: Closes them when it is closed.
            setup: The run.
            ranges: Ranges of the calls.
            watcher: Records SIGTERM and SIGINT.
            check_workdir: See `workdir_guard.lock`; None in all processes but the primary one.
        """
        enter = stack.enter_context
        config, workdir, start = setup.run.config, setup.workdir, ranges.start
        self._config, self._workdir, self._ranges, self._watcher = config, workdir, ranges, watcher
        self._writer = enter(writers.open_writer(workdir, start))
        metadata = run_description.describe(setup.run)
        self._checkpoints = checkpoint.Checkpoints(workdir, config.keep_checkpoints, metadata)
        enter(contextlib.closing(self._checkpoints))
        self._grids = SampleGrids(setup.sampler, config.seed, setup.source, workdir, self._writer)
        self._hooks = [
            Hook(self._grids.write, config.sample_every),
            Hook(self._checkpoints.save, config.checkpoint_every, on_stop=True),
        ]
        self._evaluate = None
        if setup.scorer is not None:
            best = checkpoint.Checkpoints(workdir, 1, metadata, checkpoint_folder.BEST_FOLDER)
            enter(contextlib.closing(best))
            self._evaluate = TrainingEvaluator(
                config, setup.scorer, workdir, self._writer, best, watcher
            )
            self._hooks.append(Hook(self._evaluate, config.evaluation.every))
        self._bar = enter(tqdm(total=config.num_steps, initial=start, unit='step', disable=None))
        self._check_workdir = check_workdir
        self._log = MetricLog(config.batch_size, self._checkpoints.latest_step, config.max_skipped)
        self._callbacks = self._create_callbacks()

    def describe(self, state: GANState) -> None:
        """Write the config and a table of the parameters to TensorBoard; also log the table."""
        values = self._config.to_dict()
        self._writer.write_hparams(config_lib.flatten(values))
        texts = {'config': f'```json\n{json.dumps(values, indent=2)}\n```'}
        for name in NETWORKS:
            params = getattr(state, name).params
            overview = parameter_overview.get_parameter_overview(params, include_stats=False)
            logging.info('%s:\n%s', name, overview)
            texts[name] = f'```\n{overview}\n```'
        self._writer.write_texts(int(state.step), texts)

    def run(self, state: GANState, update: Update, batches: Iterable[Any]) -> tuple[GANState, bool]:
        """Run all calls, or until a signal is received.

        Args:
            state: The state at the first step.
            update: Compiled function of (state, batches of a call).
            batches: The batches of each call.

        Returns:
            The state, of which there is a checkpoint, and whether a signal stopped the loop.

        Raises:
            NonFiniteError: If a metric is not finite; the state is not saved.
            TrainingError: If a checkpoint cannot be written, or the workdir was removed.
        """
        stopped = False
        try:
            self._evaluate_restored(state)
            # The devices are one call ahead of the host, which logs, saves and samples.
            for (first, end), batch in zip(self._ranges, batches, strict=True):
                call = Call(first, end, self._config.num_steps)
                state, metrics = update(state, batch)
                stopped = self._after_call(call, state, metrics)
                if stopped:
                    break
        except preemption.Preempted:  # During an evaluation.
            stopped = True
            if self._checkpoints.latest_step() != int(state.step):
                self._checkpoints.save(state)
        # Not `latest_step() is None`, which differs between processes during a save.
        if int(state.step) == 0:
            self._checkpoints.save(state)
        has_grid = grid_path(self._workdir, int(state.step)).exists()
        if not stopped and not multihost.all_true(has_grid):
            self._grids.write(state)
        return state, stopped

    def _evaluate_restored(self, state: GANState) -> None:
        """Evaluate the restored state if its evaluation was interrupted."""
        start = self._ranges.start
        call = Call(start - self._ranges.steps_per_call, start, self._config.num_steps)
        if self._evaluate and start > 0 and call.is_due(self._config.evaluation.every):
            self._evaluate.evaluate_if_missing(state)

    def _after_call(self, call: Call, state: GANState, metrics: Metrics) -> bool:
        """Log metrics, run the hooks that are due, and return whether to stop."""
        config = self._config
        self._log.add(call.first, call.end, metrics)
        self._bar.update(call.end - call.first)
        for callback in self._callbacks:
            callback(call.end)
        stopped = self._watcher.should_stop() and call.end < config.num_steps
        due = [hook for hook in self._hooks if hook.is_due(call, stopped)]
        if due or call.is_due(config.log_every):
            multihost.on_primary(self._check_workdir)
            # Raises NonFiniteError before a non-finite state is saved, sampled or evaluated.
            scalars = self._log.fetch()
            self._writer.write_scalars(call.end, scalars)
            self._bar.set_postfix({name: scalars.get(f'{name}/loss') for name in NETWORKS})
        with self._log.paused():
            for hook in due:
                hook.run(state)
        return stopped

    def _create_callbacks(self) -> list[Callable[[int], Any]]:
        """Return functions of the step that report progress and, if configured, profile calls."""
        callbacks = [
            periodic_actions.ReportProgress(
                num_train_steps=self._config.num_steps, writer=self._writer, every_secs=30.0
            )
        ]
        ranges = self._ranges
        if self._config.profile and len(ranges) < 3:
            logging.warning('config.profile has no effect: the run has fewer than 3 jitted calls')
        elif self._config.profile:
            first, last = ranges[1][1], ranges[min(5, len(ranges) - 1)][1]
            callbacks.append(
                periodic_actions.Profile(
                    logdir=self._workdir,
                    first_profile=first,
                    num_profile_steps=last - first,
                    profile_duration_ms=None,
                    every_secs=None,
                )
            )
        return callbacks

"""Asynchronous and atomic Orbax checkpoints with a checksum of each array."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import flax
import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from dcgan_jax.runtime import checkpoint_folder, checksums, multihost
from dcgan_jax.runtime.checkpoint_errors import DamagedError, raise_damaged
from dcgan_jax.runtime.checkpoint_folder import DAMAGED_FOLDER, FOLDER
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.runtime.files import absolute, write_atomic

State = Any  # A flax.struct dataclass of arrays with a field `step`.

_MARKER_TEXT = b'This run has saved checkpoints. If they are lost, it is not restarted.\n'
_DAMAGED_README = b'Damaged checkpoints by step. They are no longer used and can be deleted.\n'


class Checkpoints:
    """Saves the states of a run in `workdir/FOLDER/STEP`."""

    _open: ClassVar[set['Checkpoints']] = set()

    def __init__(
        self, workdir: epath.PathLike, keep: int, metadata: dict[str, Any], folder: str = FOLDER
    ):
        """Open the folder and remove incomplete checkpoints.

        Args:
            workdir: Folder of the run.
            keep: Number of latest checkpoints to keep.
            metadata: JSON-serializable description, saved in every checkpoint.
            folder: Name of the folder in `workdir`.
        """
        self._metadata = metadata
        self._marker = checkpoint_folder.marker(workdir, folder)
        self._folder = absolute(workdir) / folder
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers=_handlers(),
            # Metadata is read on demand, so that damaged metadata of a step does not affect others.
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True, lightweight_initialize=True
            ),
        )
        self._had_checkpoint = self.latest_step() is not None
        self._open.add(self)

    def latest_step(self) -> int | None:
        """Return the step of the last complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: State, **metadata: Any) -> None:
        """Copy the state to the host and write it in the background.

        Args:
            state: The state.
            **metadata: Additional metadata of this checkpoint.

        Raises:
            TrainingError: If this save fails, if the previous one failed in the background, or if
                the folder contains other files that would be deleted.
        """
        step = int(state.step)
        multihost.on_primary(self._check_contents)
        if jax.process_count() > 1:  # All Orbax managers share barriers, so one writes at a time.
            with self._raise_training_error():
                for checkpoints in self._open:
                    checkpoints._manager.wait_until_finished()
        # Checkpoints of later steps were written before a rollback; Orbax would keep them instead
        # of this one.
        for later in [saved for saved in self._manager.all_steps() if saved >= step]:
            self._manager.wait_until_finished()
            self._manager.delete(later)
        has_previous = bool(self._manager.all_steps())
        self._had_checkpoint |= has_previous
        tree = _to_dict(state)
        sums = {name: int(value) for name, value in jax.device_get(checksums.compute(tree)).items()}
        with self._raise_training_error():
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    checksums=ocp.args.JsonSave(sums),
                    metadata=ocp.args.JsonSave({'step': step, **self._metadata, **metadata}),
                ),
            )
        if not saved:
            raise RuntimeError(f'Orbax did not save the checkpoint of step {step}')
        if has_previous:  # It is complete, because Orbax has waited for it.
            self._mark()

    def wait(self) -> None:
        """Wait until all checkpoints are written; raise `TrainingError` if this fails."""
        with self._raise_training_error():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until all checkpoints are written, and close the manager."""
        try:
            self.wait()
            self._mark()
        finally:
            self._open.discard(self)
            self._manager.close()

    def _check_contents(self) -> None:
        # Orbax deletes checkpoints that are not kept, and any folder in the place of a new one.
        if found := checkpoint_folder.foreign_files(self._folder):
            raise TrainingError(
                f'{found}: stopped, because they would be deleted; move them elsewhere, then rerun '
                'the same command to resume'
            )

    def _mark(self) -> None:
        """Record that the run has had a complete checkpoint, so that its loss can be detected."""
        if not multihost.is_primary() or self._marker.exists():
            return
        # The steps known to Orbax may be outdated: the folder may have been removed or renamed.
        if checkpoint_folder.complete_steps(self._folder):
            write_atomic(self._marker, _MARKER_TEXT)

    @contextlib.contextmanager
    def _raise_training_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # A full disk raises OSError, or ValueError in TensorStore.
            self._manager.reload()  # Ignores the incomplete checkpoint.
            last = self.latest_step()
            kept = f'{self._folder} has no checkpoint'
            if last is not None:
                kept = f'the last checkpoint in {self._folder} is that of step {last}'
            reason = next(iter(str(error).splitlines()), '')[:200]
            remedy = 'fix this (e.g. free disk space), then rerun the same command to resume'
            # Orbax raises various exceptions if its folder was removed.
            is_removed = not self._folder.parent.exists() or isinstance(error, FileNotFoundError)
            if is_removed or (last is None and self._had_checkpoint):
                remedy = (
                    'the folder of the checkpoints was removed or renamed during the run; restore '
                    'it, or start a new run in another --workdir'
                )
            raise TrainingError(
                f'a checkpoint cannot be written ({type(error).__name__}: {reason}): stopped, '
                f'{kept}; {remedy}'
            ) from error


def restore_latest(
    workdir: epath.PathLike,
    abstract_state: State,
    folder: str = FOLDER,
    check: Callable[[epath.Path], None] = lambda path: None,
) -> tuple[State | None, list[int]]:
    """Restore the last intact checkpoint.

    Args:
        workdir: Folder of the run.
        abstract_state: State of `jax.ShapeDtypeStruct`s with shardings.
        folder: `FOLDER` or `BEST_FOLDER`.
        check: Called in the primary process with the path of a checkpoint before it is restored;
            raises `UserError` if the checkpoint must not be used.

    Returns:
        The state, or None if there is no checkpoint, and the steps of damaged checkpoints.

    Raises:
        UserError: If the arrays of a checkpoint differ from those of `abstract_state`, if all
            checkpoints are damaged or lost, if a training run replaced each of them while it was
            read, or if `check` rejects a checkpoint.
    """
    path = absolute(workdir) / folder

    def read(path: epath.Path) -> State:
        multihost.on_primary(check, path)
        return _restore_on_all(path, abstract_state)

    state, damaged = checkpoint_folder.read_latest(path, read, multihost.from_primary)
    if state is not None:
        return state, damaged
    if damaged:
        raise UserError(
            f'all checkpoints in {path} are damaged (steps {sorted(damaged)}): restore one from a '
            f'backup, or {checkpoint_folder.remedy(folder)}'
        )
    checkpoint_folder.check_not_lost(workdir, folder)
    return None, []


def move_damaged(workdir: epath.PathLike, steps: list[int]) -> None:
    """Move damaged checkpoints to `DAMAGED_FOLDER`, so that their steps can be saved again."""
    for step in steps:
        target = epath.Path(workdir) / DAMAGED_FOLDER / str(step)
        # In a bucket, a folder exists only if it contains a file.
        write_atomic(target.parent / 'README.txt', _DAMAGED_README)
        if target.exists():
            target.rmtree()
        (epath.Path(workdir) / FOLDER / str(step)).rename(target)
        logging.warning('moved the damaged checkpoint of step %d to %s', step, target)


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    """Return the Orbax handler of each item of a checkpoint."""
    return {
        'state': ocp.StandardCheckpointHandler(),
        'checksums': ocp.JsonCheckpointHandler(),
        'metadata': ocp.JsonCheckpointHandler(),
    }


def _restore_on_all(path: epath.Path, abstract_state: State) -> State:
    """Restore a checkpoint; raise `DamagedError` on all processes if it fails on any of them."""
    state, damage = None, DamagedError(f'{path} cannot be read by another process')
    try:
        state = _restore(path, abstract_state)
    except DamagedError as error:
        damage = error
    if not multihost.all_true(state is not None):
        raise damage
    return state


def _restore(path: epath.Path, abstract_state: State) -> State:
    """Restore a checkpoint and verify its checksums."""
    expected = _to_dict(abstract_state)
    # A manager would fail if a training run deleted one of its checkpoints.
    with contextlib.closing(ocp.Checkpointer(ocp.CompositeCheckpointHandler(**_handlers()))) as io:
        with raise_damaged(path):
            stored = io.metadata(path).item_metadata['state'].tree
        _check_arrays(checksums.flatten(stored), checksums.flatten(expected), path)
        with raise_damaged(path):
            restored = io.restore(
                path,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(expected),
                    checksums=ocp.args.JsonRestore(),
                ),
            )
    state = restored['state']
    computed, saved = jax.device_get(checksums.compute(state)), restored['checksums']
    if not isinstance(saved, dict):
        raise DamagedError(f'{path} is damaged (its checksums are {saved!r:.99})')
    for name, value in computed.items():
        if int(value) != saved.get(name):
            raise DamagedError(f'{path} is damaged (the checksum of {name} differs)')
    # The folder was copied or renamed. Training would replace later checkpoints.
    if int(state['step']) != int(path.name):
        raise UserError(
            f'{path} has the state of step {int(state["step"])}: rename it, or move it elsewhere'
        )
    return flax.serialization.from_state_dict(abstract_state, state)


def _check_arrays(stored: dict[str, Any], expected: dict[str, Any], path: epath.Path) -> None:
    """Raise a `UserError` about the first array whose shape differs, if there is one."""
    for name in sorted(stored.keys() | expected.keys()):
        shapes = [
            tuple(tree[name].shape) if name in tree else 'absent' for tree in (stored, expected)
        ]
        if shapes[0] != shapes[1]:
            raise UserError(
                f'{path} has a different architecture: {name} is {shapes[0]}, not {shapes[1]}; '
                'use the code and config that wrote it, or another --workdir'
            )


def _to_dict(state: State) -> dict[str, Any]:
    """Convert the state to nested dicts, the form that Orbax stores."""
    return flax.serialization.to_state_dict(state)

"""Asynchronous and atomic Orbax checkpoints with a checksum of each array."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from dcgan_jax.runtime import multihost
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.runtime.files import absolute, write_atomic

State = Any  # A flax.struct dataclass of arrays with a field `step`.

FOLDER = 'checkpoints'
BEST_FOLDER = 'best_checkpoint'
DAMAGED_FOLDER = 'damaged_checkpoints'
_DAMAGED_README = b'Damaged checkpoints by step. They are no longer used and can be deleted.\n'


class DamagedError(Exception):
    """A checkpoint cannot be read or its checksums do not match."""


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
        self._marker = _marker(workdir, folder)
        self._manager = _manager(
            absolute(workdir) / folder, max_to_keep=keep, cleanup_tmp_directories=True
        )
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
            TrainingError: If this save fails, or the previous one failed in the background.
        """
        step = int(state.step)
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
        tree = _to_dict(state)
        checksums = {name: int(value) for name, value in jax.device_get(_checksums(tree)).items()}
        with self._raise_training_error():
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    checksums=ocp.args.JsonSave(checksums),
                    metadata=ocp.args.JsonSave({'step': step, **self._metadata, **metadata}),
                ),
            )
        if not saved:
            raise RuntimeError(f'Orbax did not save the checkpoint of step {step}')
        if has_previous:  # It is complete, because Orbax has waited for it.
            self._mark()

    def close(self) -> None:
        """Wait until all checkpoints are written, and close the manager."""
        try:
            with self._raise_training_error():
                self._manager.wait_until_finished()
            if self.latest_step() is not None:
                self._mark()
        finally:
            self._open.discard(self)
            self._manager.close()

    def _mark(self) -> None:
        """Record that a complete checkpoint exists, so that its loss can be detected."""
        if multihost.is_primary() and not self._marker.exists():
            write_atomic(self._marker, b'')

    @contextlib.contextmanager
    def _raise_training_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # A full disk raises OSError, or ValueError in TensorStore.
            self._manager.reload()  # Ignores the incomplete checkpoint.
            last = self.latest_step()
            kept = 'there is no checkpoint' if last is None else f'the last checkpoint is {last}'
            reason = next(iter(str(error).splitlines()), '')[:200]
            raise TrainingError(
                f'a checkpoint cannot be written ({type(error).__name__}: {reason}): stopped, '
                f'{kept}; fix this (e.g. free disk space), then rerun the same command to resume'
            ) from error


def restore_latest(
    workdir: epath.PathLike, abstract_state: State, folder: str = FOLDER
) -> tuple[State | None, list[int]]:
    """Restore the last intact checkpoint.

    Args:
        workdir: Folder of the run.
        abstract_state: State of `jax.ShapeDtypeStruct`s with shardings.
        folder: `FOLDER` or `BEST_FOLDER`.

    Returns:
        The state, or None if there is no checkpoint, and the steps of damaged checkpoints.

    Raises:
        UserError: If the arrays of a checkpoint differ from those of `abstract_state`, or if all
            checkpoints are damaged or lost.
    """
    marker, folder = _marker(workdir, folder), absolute(workdir) / folder
    manager = _manager(folder, create=False) if folder.exists() else None
    steps = manager.all_steps() if manager else []
    damaged = []
    try:
        for step in sorted(steps, reverse=True):
            state = None
            try:
                state = _restore(manager, step, abstract_state, folder / str(step))
            except DamagedError as error:
                logging.warning('%s: trying the previous checkpoint', error)
            if multihost.all_true(state is not None):
                return state, damaged
            damaged.append(step)
    finally:
        if manager:
            manager.close()
    if damaged and not any((folder / str(step)).exists() for step in damaged):
        raise UserError(
            f'the checkpoints in {folder} were replaced by a training run while they were read: '
            'try again'
        )
    if damaged:
        raise UserError(
            f'all checkpoints in {folder} are damaged (steps {sorted(damaged)}): '
            'restore one from a backup, or start a new run in another --workdir'
        )
    if marker.exists():
        raise UserError(
            f'{folder} contains no checkpoints, although the run had saved some: restore one from '
            'a backup, or start a new run in another --workdir'
        )
    return None, []


def latest_metadata(workdir: epath.PathLike, folder: str = FOLDER) -> dict[str, Any]:
    """Return the metadata of the last checkpoint that has readable metadata, or {}.

    Args:
        workdir: Folder of the run.
        folder: `FOLDER` or `BEST_FOLDER`.
    """
    # The file is read without Orbax, whose managers would wait for all processes.
    folder = absolute(workdir) / folder
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    for step in sorted((int(name) for name in names if name.isdecimal()), reverse=True):
        path = folder / str(step) / 'metadata' / 'metadata'
        try:
            metadata = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            logging.warning('%s cannot be read (%s)', path, error)
            continue
        if isinstance(metadata, dict):
            return metadata
    return {}


def _marker(workdir: epath.PathLike, folder: str) -> epath.Path:
    """Return the path of a file that exists if `folder` has ever had a complete checkpoint."""
    return absolute(workdir) / f'.has_{folder}'


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


def _manager(folder: epath.Path, **options: Any) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder,
        item_handlers={
            'state': ocp.StandardCheckpointHandler(),
            'checksums': ocp.JsonCheckpointHandler(),
            'metadata': ocp.JsonCheckpointHandler(),
        },
        # Metadata is read on demand, so that damaged metadata of a step does not affect others.
        options=ocp.CheckpointManagerOptions(lightweight_initialize=True, **options),
    )


def _restore(
    manager: ocp.CheckpointManager, step: int, abstract_state: State, path: epath.Path
) -> State:
    expected = _to_dict(abstract_state)
    with _raise_damaged(path):
        stored = manager.item_metadata(step)['state'].tree
    _check_arrays(_flatten(stored), _flatten(expected), path)
    with _raise_damaged(path):
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(expected),
                checksums=ocp.args.JsonRestore(),
            ),
        )
    state = restored['state']
    checksums, saved = jax.device_get(_checksums(state)), restored['checksums']
    if not isinstance(saved, dict):
        raise DamagedError(f'{path} is damaged (its checksums are {saved!r:.99})')
    for name, value in checksums.items():
        if int(value) != saved.get(name):
            raise DamagedError(f'{path} is damaged (the checksum of {name} differs)')
    if int(state['step']) != step:  # Copied or renamed; later checkpoints would be replaced.
        raise UserError(
            f'{path} has the state of step {int(state["step"])}: rename it, or move it elsewhere'
        )
    return flax.serialization.from_state_dict(abstract_state, state)


@contextlib.contextmanager
def _raise_damaged(path: epath.Path) -> Iterator[None]:
    """Raise `DamagedError` for the various exceptions of Orbax and TensorStore.

    Raises:
        UserError: If access is denied, which does not mean that the checkpoint is damaged.
    """
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), '')[:200]
        if isinstance(error, PermissionError) or 'PERMISSION_DENIED' in str(error):
            raise UserError(f'{path} cannot be read ({reason}): make it readable') from error
        raise DamagedError(f'{path} is damaged ({type(error).__name__}: {reason})') from error


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


def _flatten(tree: dict[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep='/')


@jax.jit
def _checksums(tree: dict[str, Any]) -> dict[str, jax.Array]:
    """Return a 32-bit checksum of each leaf, independent of its sharding.

    The words of a leaf have odd weights, so that a change of any single word changes the checksum.
    """
    return {name: _checksum(leaf) for name, leaf in _flatten(tree).items()}


def _checksum(leaf: jax.Array) -> jax.Array:
    unsigned = jnp.dtype(f'uint{8 * leaf.dtype.itemsize}')
    words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).reshape(-1)
    weights = 2 * jax.lax.iota(jnp.uint32, words.size) + 1
    return jnp.sum(words * weights, dtype=jnp.uint32)

"""Checkpoints by Orbax: asynchronous, atomic, the last few kept, each leaf with a checksum."""

import contextlib
from collections.abc import Iterator
from typing import Any

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
_DAMAGED_README = (
    b'Checkpoints by step that were not whole. Nothing reads them: delete them if you like.\n'
)


class DamagedError(Exception):
    """A checkpoint that can't be read, or whose content isn't what was saved."""


class Checkpoints:
    """Saves a run's states under `workdir/FOLDER/STEP`."""

    def __init__(
        self, workdir: epath.PathLike, keep: int, metadata: dict[str, Any], folder: str = FOLDER
    ):
        """Opens the folder for saving; removes what an interrupted save left.

        Args:
            workdir: of the run.
            keep: how many of the latest checkpoints stay.
            metadata: saved in each, for those who find a checkpoint alone; JSON.
            folder: in `workdir`.
        """
        self._metadata = metadata
        self._manager = _manager(
            absolute(workdir) / folder, max_to_keep=keep, cleanup_tmp_directories=True
        )

    def latest_step(self) -> int | None:
        """The step of the last whole checkpoint, or None."""
        return self._manager.latest_step()

    def latest_metadata(self) -> dict[str, Any]:
        """What was saved with the last checkpoint; empty where there is none, or it is damaged."""
        step = self.latest_step()
        if step is None:
            return {}
        try:
            metadata = self._manager.restore(
                step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
            )['metadata']
        except Exception as error:  # Orbax raises what it likes.
            logging.warning('metadata of checkpoint %d can not be read (%s)', step, error)
            return {}
        return metadata if isinstance(metadata, dict) else {}

    def save(self, state: State, **metadata: Any) -> None:
        """Copies the state to the host, then writes it in the background.

        A save that failed in the background raises at the next call, or at `close`: a
        `TrainingError`. `metadata` is added to that of all.
        """
        step = int(state.step)
        # Of a past that the run went back from; Orbax would keep them instead.
        for later in [known for known in self._manager.all_steps() if known >= step]:
            self._manager.wait_until_finished()
            self._manager.delete(later)
        tree = _named(state)
        checksums = {name: int(value) for name, value in jax.device_get(_checksums(tree)).items()}
        with self._written():
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

    def close(self) -> None:
        """Waits until all is written."""
        try:
            with self._written():
                self._manager.wait_until_finished()
        finally:
            self._manager.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Tells what could not be written, be it in the background."""
        try:
            yield
        except Exception as error:  # A full disk comes as OSError, or as TensorStore's ValueError.
            self._manager.reload()  # one that was not finished is none
            last = self.latest_step()
            good = 'there is none' if last is None else f'the last whole one is of step {last}'
            reason = next(iter(str(error).splitlines()), '')[:200]
            raise TrainingError(
                f'a checkpoint can not be written ({type(error).__name__}: {reason}): stopped, '
                f'{good}; mend that (free some space, say), then the same command goes on'
            ) from error


def restore_latest(
    workdir: epath.PathLike, like: State, folder: str = FOLDER
) -> tuple[State | None, list[int]]:
    """Reads the last checkpoint that is whole, going back over damaged ones, and changes nothing.

    Args:
        workdir: of the run.
        like: a state of `jax.ShapeDtypeStruct` with shardings.
        folder: `FOLDER`, or `BEST_FOLDER`.

    Returns:
        The state (None where no checkpoint was ever finished) and the steps of damaged ones.

    Raises:
        UserError: a checkpoint holds other arrays than `like`, or all of them are damaged.
    """
    folder = absolute(workdir) / folder
    if not folder.exists():
        return None, []
    manager = _manager(folder, create=False)
    damaged = []
    try:
        for step in sorted(manager.all_steps(), reverse=True):
            state = None
            try:
                state = _restore(manager, step, like, folder / str(step))
            except DamagedError as error:
                logging.warning('%s: the one before it is tried, if any', error)
            if multihost.all_true(state is not None):
                return state, damaged
            damaged.append(step)
    finally:
        manager.close()
    if damaged:
        raise UserError(
            f'all checkpoints in {folder} are damaged (steps {sorted(damaged)}): '
            'restore one from a copy, or start again in another --workdir'
        )
    return None, []


def move_damaged(workdir: epath.PathLike, steps: list[int]) -> None:
    """Moves damaged checkpoints to `damaged_checkpoints/`: their steps can be saved again."""
    for step in steps:
        target = epath.Path(workdir) / DAMAGED_FOLDER / str(step)
        # In a bucket a folder is there when it holds a file, and only then can be moved to.
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
        # It reads no step's metadata before that step is asked for: one that is damaged would keep
        # the others from being found.
        options=ocp.CheckpointManagerOptions(lightweight_initialize=True, **options),
    )


def _restore(manager: ocp.CheckpointManager, step: int, like: State, path: epath.Path) -> State:
    expected = _named(like)
    with _damage(path):
        stored = manager.item_metadata(step)['state'].tree
    _check_arrays(_flat(stored), _flat(expected), path)
    with _damage(path):
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_filled(stored, expected)),
                checksums=ocp.args.JsonRestore(),
            ),
        )
    state = _filled(expected, restored['state'])
    checksums, known = jax.device_get(_checksums(state)), restored['checksums']
    if not isinstance(known, dict):
        raise DamagedError(f'{path} is damaged (its checksums are {known!r:.99})')
    for name, value in checksums.items():
        if int(value) != known.get(name):
            raise DamagedError(f'{path} is damaged (checksum of {name} differs)')
    return flax.serialization.from_state_dict(like, state)


@contextlib.contextmanager
def _damage(path: epath.Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise for unreadable files, which is of all kinds."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), '')[:200]
        raise DamagedError(f'{path} is damaged ({type(error).__name__}: {reason})') from error


def _check_arrays(stored: dict[str, Any], expected: dict[str, Any], path: epath.Path) -> None:
    """Refuses a checkpoint of another architecture, by name of the first array that differs."""
    for name in sorted(stored.keys() | expected.keys()):
        shapes = [
            tuple(tree[name].shape) if name in tree else 'absent' for tree in (stored, expected)
        ]
        if shapes[0] != shapes[1]:
            raise UserError(
                f'{path} is of another architecture: {name} is {shapes[0]} there and {shapes[1]} '
                'here: use the code and config that wrote it, or another --workdir'
            )


def _filled(tree: dict[str, Any], leaves: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the leaves of another that differs from it in empty nodes alone.

    An older state lacks fields that came later; those are empty where what they are for is unused.
    """
    flat = flax.traverse_util.flatten_dict(tree, keep_empty_nodes=True, sep='/')
    values, empty = _flat(leaves), flax.traverse_util.empty_node
    return flax.traverse_util.unflatten_dict(
        {name: leaf if leaf is empty else values[name] for name, leaf in flat.items()}, sep='/'
    )


def _named(state: State) -> dict[str, Any]:
    """The state as nested dicts by field name, which is what Orbax stores."""
    return flax.serialization.to_state_dict(state)


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep='/')


@jax.jit
def _checksums(tree: dict[str, Any]) -> dict[str, jax.Array]:
    """A 32-bit sum over the bits of each leaf, the same however it is sharded.

    Each word is weighted by an odd number, so that a change of any one word changes the sum.
    """
    return {name: _checksum(leaf) for name, leaf in _flat(tree).items()}


def _checksum(leaf: jax.Array) -> jax.Array:
    unsigned = jnp.dtype(f'uint{8 * leaf.dtype.itemsize}')
    words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).reshape(-1)
    weights = 2 * jax.lax.iota(jnp.uint32, words.size) + 1
    return jnp.sum(words * weights, dtype=jnp.uint32)

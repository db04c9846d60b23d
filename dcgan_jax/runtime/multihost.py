"""Runs with several processes on one or more machines; each process has some of the devices.

All processes run the same program and must compile and execute the same computations in the same
order. The primary process (index 0) writes the files.
"""

import contextlib
import faulthandler
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from dcgan_jax.runtime.errors import UserError

HEARTBEAT_SECONDS = 30  # Time until a lost process is detected.


def initialize(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Join the processes of a run; must be called before any device is used.

    Args:
        coordinator: 'HOST:PORT' of the primary process; None means to detect it from the cluster
            (Cloud TPU, SLURM, Open MPI, Kubernetes).
        count: Number of processes; None means to detect it.
        index: Index of this process, from 0; None means to detect it.

    Raises:
        UserError: If the other processes cannot be reached.
    """
    # If a process is lost or missing, JAX aborts the others with a message, which the stack traces
    # of all threads (enabled by absl) would hide.
    faulthandler.disable()
    logging.info(
        'waiting up to five minutes for the other processes of this run (JAX aborts if two of them '
        'have the same --process_id)'
    )
    try:
        jax.distributed.initialize(
            coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'cannot join the processes of this run ({error}): pass --coordinator_address, '
            '--num_processes and --process_id to each process'
        ) from error


def is_primary() -> bool:
    """Return whether this is the process that writes files."""
    return jax.process_index() == 0


def on_primary(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in the primary process while the other processes wait.

    Returns:
        The result of the function, or None in the other processes.

    Raises:
        UserError: In the other processes, if the function raises an exception. The primary process
            raises that exception.
    """
    result, failure = None, None
    if is_primary():
        try:
            result = function(*arguments)
        except Exception as error:  # Raised below; the other processes wait for the outcome.
            failure = error
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(failure is not None))
        if failed and failure is None:
            failure = UserError('the primary process failed; see its error message')
    if failure is not None:
        raise failure
    return result


def from_primary(value: int) -> int:
    """Broadcast an int32 value from the primary process to all processes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def find_mismatches(values: Mapping[str, str]) -> list[str]:
    """Return the names of the values that differ between processes.

    If the processes have different names, return `['the names of settings']`.
    """
    if jax.process_count() == 1:
        return []
    if np.any(_differ(['\n'.join(values)])):
        return ['the names of settings']
    return [name for name, differs in zip(values, _differ(values.values()), strict=True) if differs]


def _differ(texts: Iterable[str]) -> np.ndarray:
    """Return whether each text differs between processes, bool `[N]` for N texts."""
    hashes = [hashlib.sha256(text.encode(errors='surrogateescape')).digest() for text in texts]
    words = np.frombuffer(b''.join(hashes), np.uint32).reshape(len(hashes), -1)
    gathered = multihost_utils.process_allgather(words)
    return np.any(gathered != gathered[0], axis=(0, 2))


@contextlib.contextmanager
def raise_in_all() -> Iterator[None]:
    """Raise an error in all processes if the block fails in one of them.

    The block must not call collectives. An exception in this process is raised unchanged.

    Raises:
        UserError: If the block fails only in other processes.
    """
    failure = None
    try:
        yield
    except Exception as error:  # Raised below; the other processes wait for the outcome.
        failure = error
    if not all_true(failure is None) and failure is None:
        failure = UserError('another process of this run failed; see its error message')
    if failure is not None:
        raise failure


def all_true(value: bool) -> bool:
    """Return whether `value` is true in every process."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.bool_(value))))


@contextlib.contextmanager
def primary_context(context: contextlib.AbstractContextManager) -> Any:
    """Enter a context in the primary process only; yield its value, or None in the others."""
    with contextlib.ExitStack() as stack:
        yield on_primary(stack.enter_context, context)

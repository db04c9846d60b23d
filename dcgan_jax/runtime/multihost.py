"""Several processes as one run, on one machine or many: each has some of the devices.

All of them run the same program: what compiles and computes must happen in all, in the same order.
What is written once, the first process writes.
"""

import contextlib
import faulthandler
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from dcgan_jax.runtime.errors import UserError

HEARTBEAT_SECONDS = 30  # Until a process that is gone is missed.


def initialize(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins the other processes of a run; before anything else uses a device.

    Args:
        coordinator: 'HOST:PORT' of the first process; None where the cluster tells (Cloud TPU
            slices, SLURM, Open MPI, Kubernetes).
        count: how many processes; None as above.
        index: of this one, from 0; None as above.

    Raises:
        UserError: the others can't be found.
    """
    # A process that is lost, or never comes, ends the others by an abort, after a line that says
    # so: the stacks of all their threads, which absl has asked for, would hide it.
    faulthandler.disable()
    logging.info('waiting for the other processes of this run, five minutes at most')
    try:
        jax.distributed.initialize(
            coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'cannot join the processes of this run ({error}): give --coordinator_address, '
            '--num_processes and --process_id to each'
        ) from error


def is_primary() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def on_primary(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls `function` in the first process while the others wait; its failure is everyone's.

    Returns:
        What it returned, None in the others.

    Raises:
        UserError: in the others, if it raised; in the first, what it raised.
    """
    result, failure = None, None
    if is_primary():
        try:
            result = function(*arguments)
        except Exception as error:  # The others wait for an answer, whatever it is.
            failure = error
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(failure is not None))
        if failed and failure is None:
            failure = UserError('the first process refused or failed, and says why')
    if failure is not None:
        raise failure
    return result


def all_true(value: bool) -> bool:
    """Whether it is true in every process."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.bool_(value))))


@contextlib.contextmanager
def primary_context(context: contextlib.AbstractContextManager) -> Any:
    """A block within which the first process, and it alone, holds `context`."""
    with contextlib.ExitStack() as stack:
        on_primary(stack.enter_context, context)
        yield

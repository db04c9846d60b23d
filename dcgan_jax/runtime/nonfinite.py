"""Handling of updates with a NaN or infinite loss, gradient, parameter or running statistic.

`config.on_nonfinite` is one of
- 'stop': end the run, whose checkpoints are all finite;
- 'skip': discard the update and continue with the next batch;
- 'rollback': restore the last checkpoint and continue with a different seed of batches, latents and
  dropout.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import read_bytes, write_json

State = Any  # A flax.struct dataclass of arrays with a field `step`.

CHOICES = ('stop', 'skip', 'rollback')
FILE = 'rollbacks.json'  # In the workdir.
SKIPPED = 'skipped_updates'  # Metric: 1 for an update that was skipped, else 0.


def skip_nonfinite(
    before: State, after: State, metrics: dict[str, jax.Array]
) -> tuple[State, dict[str, jax.Array]]:
    """Return the updated state if all metrics are finite, else the old state at the next step.

    Checking the metrics is sufficient, because they include the norms of the gradients, parameters
    and running statistics of both networks.
    """
    finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    skipped = 1.0 - finite.astype(jnp.float32)
    return kept.replace(step=after.step), metrics | {SKIPPED: skipped}


def seed_after_rollbacks(seed: int, rollbacks: int) -> int:
    """Return the seed of batches, latents and dropout after a number of rollbacks."""
    if not rollbacks:
        return seed
    return int(np.random.SeedSequence([seed, rollbacks]).generate_state(1)[0])


def read_rollbacks(workdir: epath.Path) -> list[str]:
    """Return the reason of each rollback of a run.

    Raises:
        UserError: If the file is damaged.
    """
    path = workdir / FILE
    try:
        reasons = json.loads(read_bytes(path).decode()) if path.exists() else []
        if not isinstance(reasons, list) or not all(isinstance(text, str) for text in reasons):
            raise ValueError('not a list of strings')
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged ({error}): restore or delete it') from error
    return reasons


def count_rollbacks(workdir: epath.Path) -> int:
    """Return the number of rollbacks of a run.

    Raises:
        UserError: If the file is damaged.
    """
    return len(read_rollbacks(workdir))


def add_rollback(workdir: epath.Path, reason: str) -> None:
    """Record a rollback in the workdir."""
    write_json(workdir / FILE, [*read_rollbacks(workdir), reason])

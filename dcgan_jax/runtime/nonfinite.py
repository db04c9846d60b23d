"""What happens to an update that makes a loss, a gradient or a parameter NaN or infinite.

`config.on_nonfinite` says: 'stop' ends the run, whose checkpoints are finite. 'skip' leaves the
networks as they were before the update and goes on with the next batch. 'rollback' goes back to the
last checkpoint, and on with batches, latents and dropout of another seed.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic

State = Any  # A flax.struct dataclass of arrays with a field `step`.

CHOICES = ('stop', 'skip', 'rollback')
FILE = 'rollbacks.json'  # in the workdir
SKIPPED = 'skipped_updates'  # Metric: 1 for an update that was skipped, else 0.


def skip_nonfinite(
    before: State, after: State, metrics: dict[str, jax.Array]
) -> tuple[State, dict[str, jax.Array]]:
    """The state after an update whose metrics are finite, else the one before, a step later.

    The metrics have the norms of both gradients and of all new parameters, so they tell.
    """
    finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    skipped = 1.0 - finite.astype(jnp.float32)
    return kept.replace(step=after.step), metrics | {SKIPPED: skipped}


def seed_after_rollbacks(seed: int, rollbacks: int) -> int:
    """The seed of batches, latents and dropout after so many rollbacks; after none the run's."""
    if not rollbacks:
        return seed
    return int(np.random.SeedSequence([seed, rollbacks]).generate_state(1)[0])


def read_rollbacks(workdir: epath.Path) -> list[str]:
    """Why the run went back, each time it did.

    Raises:
        UserError: the file that says so is damaged.
    """
    path = workdir / FILE
    try:
        found = json.loads(path.read_text()) if path.exists() else []
        if not isinstance(found, list) or not all(isinstance(why, str) for why in found):
            raise ValueError('it is no list of strings')
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged ({error}): restore it, or delete it') from error
    return found


def add_rollback(workdir: epath.Path, why: str) -> None:
    """Counts one, also for later processes."""
    write_atomic(workdir / FILE, json.dumps([*read_rollbacks(workdir), why], indent=2).encode())

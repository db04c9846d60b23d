"""Hooks of the training loop."""

from collections.abc import Callable
from typing import NamedTuple

from dcgan_jax.train_state import GANState


class Call(NamedTuple):
    """Range of steps of one jitted call.

    Attributes:
        first: Number of completed steps before the call.
        end: Number of completed steps after the call.
        num_steps: Total number of steps of the run.
    """

    first: int
    end: int
    num_steps: int

    def is_due(self, *intervals: int) -> bool:
        """Return whether the call ends the run or reaches a multiple of an interval (0: never)."""
        reached = (every and self.end // every > self.first // every for every in intervals)
        return self.end == self.num_steps or any(reached)


class Hook(NamedTuple):
    """A function of the state that is called periodically.

    Attributes:
        run: The function.
        every: Number of steps between its calls; it is also called at the end of the run.
        on_stop: Whether to call it also when the run is stopped early.
    """

    run: Callable[[GANState], None]
    every: int
    on_stop: bool = False

    def is_due(self, call: Call, stopping: bool) -> bool:
        """Return whether to call the function after `call`; `stopping` means an early stop."""
        return call.is_due(self.every) or (stopping and self.on_stop)

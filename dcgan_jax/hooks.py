"""Hooks of the training loop."""

from collections.abc import Callable
from typing import NamedTuple

from dcgan_jax.train_state import GANState


class Call(NamedTuple):
    """Range of steps of one jitted call.

    Attributes:
        first: Number of steps done before the call.
        end: Number of steps done after the call.
        last: Number of steps of the run.
    """

    first: int
    end: int
    last: int

    def is_due(self, *intervals: int) -> bool:
        """Return whether the run ended or reached a multiple of an interval; 0 means never."""
        reached = (every and self.end // every > self.first // every for every in intervals)
        return self.end == self.last or any(reached)


class Hook(NamedTuple):
    """A function of the state that is called periodically.

    Attributes:
        run: The function.
        every: Number of steps between calls of it; the end of the run is always included.
        on_stop: Whether to run it also when the run is stopped early.
    """

    run: Callable[[GANState], None]
    every: int
    on_stop: bool = False

    def is_due(self, call: Call, stopping: bool) -> bool:
        """Return whether to call the function after `call`."""
        return call.is_due(self.every) or (stopping and self.on_stop)

"""Metrics between two log lines: kept on the device, fetched late, checked, averaged."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import logging

from dcgan_jax.runtime.errors import NonFiniteError, TrainingError
from dcgan_jax.runtime.nonfinite import SKIPPED


class MetricLog:
    """Collects the metrics of calls until somebody asks for their means."""

    def __init__(
        self, batch_size: int, last_checkpoint: Callable[[], int | None], max_skipped: int = 0
    ):
        """Starts empty.

        Args:
            batch_size: images a step, for images/s.
            last_checkpoint: its step, for the message of an error.
            max_skipped: how many updates in a row may be skipped.
        """
        self._batch_size = batch_size
        self._last_checkpoint = last_checkpoint
        self._max_skipped, self._skipped_in_a_row = max_skipped, 0
        self._calls: list[tuple[int, dict[str, jax.Array]]] = []
        self._steps = 0
        self._since: float | None = None  # None until the first call, which compiles, is done.

    def add(self, first: int, end: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics `[end - first]` of a call; waits for the call before it.

        So the host is never more than one call ahead of the devices, and never makes them wait.
        """
        if self._since is None:
            jax.block_until_ready(metrics)
            self._since = time.perf_counter()
        else:
            if self._calls:
                jax.block_until_ready(self._calls[-1][1])
            self._steps += end - first
        self._calls.append((first, metrics))

    def fetch(self) -> dict[str, float]:
        """Means over the steps added since the last fetch, and `images_per_second` over them.

        Skipped updates are counted, and left out of the means; there is none if all were skipped.

        Raises:
            NonFiniteError: a metric was not finite: names it, its step and the last checkpoint.
            TrainingError: too many updates in a row were skipped.
        """
        first = self._calls[0][0]
        calls = jax.device_get([metrics for _, metrics in self._calls])
        self._calls = []
        series = {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}
        means = {}
        if SKIPPED in series:
            skipped = series.pop(SKIPPED) > 0
            self._check_skipped(first, skipped)
            means[SKIPPED] = float(skipped.sum())
            series = {name: values[~skipped] for name, values in series.items() if not all(skipped)}
        self._check_finite(first, series)
        means |= {name: float(np.mean(values, dtype=np.float64)) for name, values in series.items()}
        now = time.perf_counter()
        if self._steps:
            means['images_per_second'] = self._steps * self._batch_size / (now - self._since)
        self._steps, self._since = 0, now
        return means

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time within out of `images_per_second`."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def _check_skipped(self, first: int, skipped: np.ndarray) -> None:
        if skipped.any():
            steps = first + np.flatnonzero(skipped) + 1
            logging.warning('%d updates skipped, at steps %s', len(steps), steps[:10].tolist())
        for one in skipped:
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if one else 0
            if self._skipped_in_a_row > self._max_skipped:
                raise TrainingError(
                    f'more than {self._max_skipped} updates in a row were not finite and skipped: '
                    f'stopped, {self._good()}'
                )

    def _good(self) -> str:
        step = self._last_checkpoint()
        return 'no checkpoint yet' if step is None else f'the last checkpoint is of step {step}'

    def _check_finite(self, first: int, series: dict[str, np.ndarray]) -> None:
        bad = {name: np.flatnonzero(~np.isfinite(values)) for name, values in series.items()}
        bad = {name: int(steps[0]) for name, steps in bad.items() if len(steps)}
        if not bad:
            return
        name = min(bad, key=bad.get)
        value, at = series[name][bad[name]], first + bad[name] + 1
        raise NonFiniteError(
            f'{name} is {value} at step {at}: stopped, {self._good()}; '
            'try a lower learning rate or another seed in another --workdir'
        )

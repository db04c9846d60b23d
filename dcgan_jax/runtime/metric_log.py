"""Log of training metrics, which are kept on the devices until they are checked and averaged."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import logging

from dcgan_jax.runtime.errors import NonFiniteError, TrainingError
from dcgan_jax.runtime.nonfinite import SKIPPED


class MetricLog:
    """Collects the metrics of calls and averages them on request."""

    def __init__(
        self, batch_size: int, last_checkpoint: Callable[[], int | None], max_skipped: int = 0
    ):
        """Initialize an empty log.

        Args:
            batch_size: Images per step, for `images_per_second`.
            last_checkpoint: Function that returns the step of the last checkpoint.
            max_skipped: Largest allowed number of consecutive skipped updates.
        """
        self._batch_size = batch_size
        self._last_checkpoint = last_checkpoint
        self._max_skipped, self._consecutive_skipped = max_skipped, 0
        self._calls: list[tuple[int, dict[str, jax.Array]]] = []
        self._steps = 0
        self._since: float | None = None  # None until the first call has compiled and finished.

    def add(self, first: int, end: int, metrics: dict[str, jax.Array]) -> None:
        """Add the metrics `[end - first]` of a call, after waiting for the previous call.

        The host is therefore at most one call ahead of the devices, which never wait for it.
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
        """Return the means since the last fetch, and `images_per_second`.

        Skipped updates are counted but excluded from the means. If all updates are skipped, no
        means are returned.

        Raises:
            NonFiniteError: If a metric is not finite.
            TrainingError: If too many consecutive updates are skipped.
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
        """Return a context whose time is excluded from `images_per_second`."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def _check_skipped(self, first: int, skipped: np.ndarray) -> None:
        if skipped.any():
            steps = first + np.flatnonzero(skipped) + 1
            logging.warning('skipped %d updates, at steps %s', len(steps), steps[:10].tolist())
        for is_skipped in skipped:
            self._consecutive_skipped = self._consecutive_skipped + 1 if is_skipped else 0
            if self._consecutive_skipped > self._max_skipped:
                raise TrainingError(
                    f'more than max_skipped={self._max_skipped} consecutive updates were not '
                    f'finite: stopped, {self._checkpoint_status()}; try a lower learning rate'
                )

    def _checkpoint_status(self) -> str:
        step = self._last_checkpoint()
        if step is None:
            return 'there is no checkpoint'
        return f'the last checkpoint is that of step {step}'

    def _check_finite(self, first: int, series: dict[str, np.ndarray]) -> None:
        first_bad = {name: np.flatnonzero(~np.isfinite(values)) for name, values in series.items()}
        first_bad = {name: int(steps[0]) for name, steps in first_bad.items() if len(steps)}
        if not first_bad:
            return
        name = min(first_bad, key=first_bad.get)
        value, step = series[name][first_bad[name]], first + first_bad[name] + 1
        raise NonFiniteError(
            f'{name} is {value} at step {step}: stopped, {self._checkpoint_status()}; '
            'try a lower learning rate, or another seed in another --workdir'
        )

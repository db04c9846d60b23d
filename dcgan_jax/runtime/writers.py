"""CLU metric writers over tensorboardX: TensorBoard event files without TensorFlow."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from clu.asynclib import AsyncError
from etils import epath
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from dcgan_jax.runtime import multihost
from dcgan_jax.runtime.clu_no_tf import metric_writers
from dcgan_jax.runtime.errors import TrainingError

EVENT_FILE = 'tfevents'  # Part of the name of each event file.
_FLUSH_SECONDS = 30.0  # A killed process loses at most the events of this period.


class TensorBoardWriter(metric_writers.MetricWriter):
    """Writes TensorBoard event files and raises I/O errors, unlike tensorboardX's writer."""

    def __init__(self, logdir: epath.PathLike, first_step: int = 0):
        """Open a new event file in `logdir`; TensorBoard drops older events after `first_step`."""
        # tensorboardX's `SummaryWriter` is not used, because its thread ends silently at the first
        # error and closing it then blocks.
        with _raise_training_error():
            self._events = EventsWriter(_new_prefix(epath.Path(logdir)))
        self._flushed = time.monotonic()
        started = SessionLog(status=SessionLog.START)
        self._write(Event(step=first_step + 1, session_log=started))

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write scalars by name."""
        for name, value in scalars.items():
            self._write(Event(step=step, summary=summary.scalar(name, float(value))))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Write images by name: uint8 `[H, W, C]`, or `[N, H, W, C]` for several images."""
        for name, value in images.items():
            named = {name: value}
            if value.ndim == 4:
                named = {f'{name}/{index}': image for index, image in enumerate(value)}
            for tag, image in named.items():
                encoded = summary.image(tag, image, dataformats='HWC')
                self._write(Event(step=step, summary=encoded))

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write Markdown texts by name."""
        for name, value in texts.items():
            self._write(Event(step=step, summary=summary.text(name, value)))

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        """Write histograms of arrays by name, with 30 buckets by default."""
        for name, value in arrays.items():
            buckets = (num_buckets or {}).get(name) or 30
            histogram = summary.histogram(name, np.asarray(value), buckets)
            self._write(Event(step=step, summary=histogram))

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Write the flattened hyperparameters for TensorBoard's HPARAMS page."""
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in hparams.items()
        }
        for part in summary.hparams(plain, {}):
            self._write(Event(summary=part))

    def write_summaries(
        self, step: int, values: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Not supported."""
        raise NotImplementedError('TensorBoardWriter does not support raw summaries')

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        """Not supported."""
        raise NotImplementedError('TensorBoardWriter does not support videos')

    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None:
        """Not supported."""
        raise NotImplementedError('TensorBoardWriter does not support audio')

    def flush(self) -> None:
        """Flush the event file."""
        self._flushed = time.monotonic()
        with _raise_training_error():
            self._events.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        with _raise_training_error():
            self._events.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with _raise_training_error():
            self._events.write_event(event)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()


def _new_prefix(logdir: epath.Path) -> str:
    """Return the path of a new event file, to which tensorboardX appends the time and the host.

    TensorBoard reads event files in the order of their names. The names contain consecutive
    numbers, because the clock may have been set back since the last file was created.
    """
    names = [path.name.split('.') for path in logdir.glob(f'events.*{EVENT_FILE}*')]
    numbers = [int(parts[1]) for parts in names if parts[1].isascii() and parts[1].isdecimal()]
    return os.fspath(logdir / f'events.{max(numbers, default=-1) + 1:06}')


@contextlib.contextmanager
def open_writer(workdir: epath.PathLike, first_step: int) -> Iterator[metric_writers.MetricWriter]:
    """Open an asynchronous writer of event files in `workdir`; only the primary process writes.

    Raises:
        TrainingError: If the files cannot be written; raised by a later write, or on exit.
    """
    events = [TensorBoardWriter(workdir, first_step)] if multihost.is_primary() else []
    try:
        with contextlib.closing(metric_writers.AsyncMultiWriter(events)) as writer:
            yield writer
    except AsyncError as error:
        cause = error
        while cause.__cause__ is not None and not isinstance(cause, TrainingError):
            cause = cause.__cause__
        if not isinstance(cause, TrainingError):
            raise
        raise TrainingError(str(cause)) from error


@contextlib.contextmanager
def _raise_training_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f'TensorBoard events cannot be written ({error}): stopped, checkpoints are kept; fix '
            'this (e.g. free disk space), then rerun the same command to resume'
        ) from error

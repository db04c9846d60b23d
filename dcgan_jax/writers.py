"""CLU metric writers over tensorboardX: TensorBoard event files without TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorboardX
from etils import epath
from tensorboardX import summary

from dcgan_jax import processes
from dcgan_jax.clu_light import metric_writers


class TensorBoardWriter(metric_writers.MetricWriter):
    """Writes event files that TensorBoard reads, into one folder."""

    def __init__(self, logdir: epath.PathLike, first_step: int = 0):
        """Opens a new event file in `logdir`; TensorBoard drops older events after `first_step`."""
        # The suffix keeps apart two files of one second, which would else be one.
        self._writer = tensorboardX.SummaryWriter(
            str(logdir), purge_step=first_step + 1, filename_suffix=f'.from{first_step}'
        )

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes numbers by name."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(value), step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures by name: uint8 `[H, W, C]` or `[N, H, W, C]`, one picture each."""
        for name, value in images.items():
            if value.ndim == 3:
                self._writer.add_image(name, value, step, dataformats='HWC')
            else:
                for index, image in enumerate(value):
                    self._writer.add_image(f'{name}/{index}', image, step, dataformats='HWC')

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Writes Markdown by name."""
        for name, value in texts.items():
            self._writer.add_text(name, value, step)

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        """Writes histograms of arrays by name, in 30 buckets unless told."""
        for name, value in arrays.items():
            buckets = (num_buckets or {}).get(name) or 30
            self._writer.add_histogram(name, np.asarray(value), step, bins=buckets)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes the run's hyper-parameters, flat, for TensorBoard's HPARAMS page."""
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in hparams.items()
        }
        for part in summary.hparams(plain, {}):
            self._writer.file_writer.add_summary(part)

    def write_summaries(
        self, step: int, values: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Raw summaries have no use here."""
        raise NotImplementedError('TensorBoardWriter writes no raw summaries')

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        """Videos have no use here."""
        raise NotImplementedError('TensorBoardWriter writes no videos')

    def write_audios(self, step: int, audios: Mapping[str, Any], *, sample_rate: int) -> None:
        """Sounds have no use here."""
        raise NotImplementedError('TensorBoardWriter writes no audio')

    def flush(self) -> None:
        """Hands all to the file system."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


def create(workdir: epath.PathLike, first_step: int) -> metric_writers.MetricWriter:
    """A writer to event files in `workdir`, in a thread; only the first process writes."""
    events = [TensorBoardWriter(workdir, first_step)] if processes.is_first() else []
    return metric_writers.AsyncMultiWriter(events)

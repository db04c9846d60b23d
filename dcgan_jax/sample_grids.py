"""Grids of samples during training."""

import numpy as np
from etils import epath

from dcgan_jax import run_dir
from dcgan_jax.data import image_source, images
from dcgan_jax.runtime import multihost
from dcgan_jax.runtime.clu_no_tf import metric_writers
from dcgan_jax.sampling import Sampler
from dcgan_jax.train_state import GANState

GRID_SIZE = 64  # Images in a sample grid.


class SampleGrids:
    """Writes grids of images from the EMA generator, with the same inputs at every step.

    If the inputs are images, each is shown to the left of the generated image.
    """

    def __init__(
        self,
        sampler: Sampler,
        seed: int,
        source: image_source.ImageSource,
        workdir: epath.Path,
        writer: metric_writers.MetricWriter,
    ):
        """Sample the inputs.

        Args:
            sampler: Sampler of the generator.
            seed: Seed of the inputs.
            source: Split whose images are degraded to inputs, if the generator takes images.
            workdir: Folder of the run; grids are written to `samples/STEP.png`.
            writer: TensorBoard writer of the grids.
        """
        self._sampler = sampler
        self._inputs = sampler.inputs(seed, GRID_SIZE, source)
        self._workdir = workdir
        self._writer = writer

    def write(self, state: GANState) -> None:
        """Generate the grid of a state; write it to TensorBoard and to the workdir."""
        step = int(state.step)
        pixels = self._sampler(state, self._inputs)
        if self._inputs.ndim > 2:
            known = np.asarray(images.to_uint8(self._inputs[..., :-1]))
            pixels = np.stack([known, pixels], axis=1).reshape(-1, *pixels.shape[1:])
        picture = images.grid(pixels)
        self._writer.write_images(step, {'samples': picture})
        if multihost.is_primary():
            images.write_png(grid_path(self._workdir, step), picture)


def grid_path(workdir: epath.PathLike, step: int) -> epath.Path:
    """Return the path of the sample grid of a step."""
    return epath.Path(workdir) / run_dir.SAMPLES_FOLDER / f'{step:08d}.png'

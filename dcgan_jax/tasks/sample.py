"""`--mode=sample`: pictures from a trained generator."""

import io

import numpy as np
from etils import epath

from dcgan_jax import images, run_dir
from dcgan_jax.files import write_whole
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks.restore import restore

MOST_IN_GRID = 1024  # A larger picture is hard to open.


def sample(
    workdir: epath.PathLike,
    out: epath.PathLike | None,
    num: int,
    seed: int,
    which: str = 'latest',
) -> epath.Path:
    """Draws `num` images from the run in `workdir`.

    Args:
        workdir: of a training run.
        out: folder for `samples.png` (a grid of the first `MOST_IN_GRID`) and `samples.npz`
            (`images` uint8 [num, H, W, C], `latents` float32 [num, latent_dim], `labels` int32
            [num], zeros without classes, `step`);
            `workdir/samples` when None.
        num: how many, at least 1.
        seed: of the latents.
        which: checkpoint, see `restore`.

    Returns:
        The grid's path.

    Raises:
        UserError: no run or no whole checkpoint in `workdir`, or `out` isn't writable.
    """
    run, networks, state = restore(workdir, which)
    out = run_dir.check_writable(out or epath.Path(workdir) / 'samples', '--out')
    sampler = Sampler(networks.generator, run.config)
    latents = sampler.latents(seed, num)
    labels = sampler.labels(num)
    pixels = sampler(state, latents, labels)

    arrays = io.BytesIO()
    np.savez_compressed(arrays, images=pixels, latents=latents, labels=labels, step=int(state.step))
    write_whole(out / 'samples.npz', arrays.getvalue())
    return images.write_png(out / 'samples.png', images.grid(pixels[:MOST_IN_GRID]))

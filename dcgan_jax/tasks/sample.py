"""`--mode=sample`: pictures from a trained generator."""

import io

import numpy as np
from etils import epath

from dcgan_jax import images
from dcgan_jax.files import write_whole
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks.restore import restore


def sample(workdir: epath.PathLike, out: epath.PathLike | None, num: int, seed: int) -> epath.Path:
    """Draws `num` images from the run in `workdir`.

    Args:
        workdir: of a training run.
        out: folder for `samples.png` (a grid) and `samples.npz` (`images` uint8 [num, H, W, C],
            `latents` float32 [num, latent_dim], `step`); `workdir/samples` when None.
        num: how many, at least 1.
        seed: of the latents.

    Returns:
        The grid's path.

    Raises:
        UserError: no run or no whole checkpoint in `workdir`.
    """
    run, networks, state = restore(workdir)
    sampler = Sampler(networks.generator, run.config)
    latents = sampler.latents(seed, num)
    pixels = sampler(state.ema_params, latents)

    out = epath.Path(out or epath.Path(workdir) / 'samples')
    arrays = io.BytesIO()
    np.savez_compressed(arrays, images=pixels, latents=latents, step=int(state.step))
    write_whole(out / 'samples.npz', arrays.getvalue())
    return images.write_png(out / 'samples.png', images.grid(pixels))

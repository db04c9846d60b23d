"""`--mode=translate`: grey images in colour (pix2pix: Isola et al. 2017, arXiv:1611.07004)."""

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import inputs
from dcgan_jax.tasks import pairs

KIND = 'grey'


def translate(
    workdir: epath.PathLike,
    given: ConfigDict | None,
    out: epath.PathLike | None,
    pictures: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Colours images by a run trained for it, or by searching latents.

    Arguments and result as in `super_resolve`, results in `workdir/translation`; what is measured
    stands beside the grey images themselves.
    """
    task = pairs.open_task(workdir, given, KIND, which, seed)
    if pictures is not None:
        read = pairs.read_pictures(pictures, task.image_shape[-1], out)
        pairs.check_multiple(pictures, read, task)
        grey = inputs.levels(inputs.grey(pairs.as_inputs(read.pixels)))
        made = task.complete(np.asarray(inputs.changeable(grey)))
        return pairs.write_pictures(pairs.folder(out, workdir, 'translation'), read, made), ''
    data = pairs.draw(task, num, seed)
    made = {'grey': pairs.known_pixels(data.given), task.method: task.complete(data.given)}
    found = pairs.figures(task, data, made)
    out = pairs.folder(out, workdir, 'translation')
    return pairs.write(out, f'colour_{task.method}', task, data, made, found)

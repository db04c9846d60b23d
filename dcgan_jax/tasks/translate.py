"""`--mode=translate`: grey images in colour (pix2pix: Isola et al. 2017, arXiv:1611.07004)."""

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import degradations
from dcgan_jax.tasks import image_to_image
from dcgan_jax.tasks.options import TaskOptions

KIND = 'grey'


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path, figures = translate(
        options.workdir, options.config, options.out, options.images, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [figures, f'pictures: {path}']))


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
    task = image_to_image.open_task(workdir, given, KIND, which, seed)
    if pictures is not None:
        read = image_to_image.read_pictures(pictures, task.image_shape[-1], out)
        image_to_image.check_multiple(pictures, read, task)
        grey = degradations.levels(degradations.grey(image_to_image.as_inputs(read.pixels)))
        made = task.complete(np.asarray(degradations.changeable(grey)))
        return image_to_image.write_pictures(
            image_to_image.folder(out, workdir, 'translation'), read, made
        ), ''
    data = image_to_image.draw(task, num, seed)
    made = {'grey': image_to_image.known_pixels(data.given), task.method: task.complete(data.given)}
    found = image_to_image.figures(task, data, made)
    out = image_to_image.folder(out, workdir, 'translation')
    return image_to_image.write(out, f'colour_{task.method}', task, data, made, found)

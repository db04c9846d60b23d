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
    overrides: ConfigDict | None,
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
    task = image_to_image.open_task(workdir, overrides, KIND, which, seed)
    if pictures is not None:
        read = image_to_image.read_user_images(pictures, task.image_shape[-1], out)
        image_to_image.check_multiple(pictures, read, task)
        grey = degradations.quantize(degradations.to_gray(image_to_image.to_float(read.pixels)))
        made = task.restore(np.asarray(degradations.with_full_mask(grey)))
        return image_to_image.write_images(
            image_to_image.output_folder(out, workdir, 'translation'), read, made
        ), ''
    data = image_to_image.load_evaluation_images(task, num, seed)
    made = {
        'grey': image_to_image.known_pixels(data.inputs),
        task.method: task.restore(data.inputs),
    }
    found = image_to_image.compute_metrics(task, data, made)
    out = image_to_image.output_folder(out, workdir, 'translation')
    return image_to_image.write(out, f'colour_{task.method}', task, data, made, found)

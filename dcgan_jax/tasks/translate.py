"""`--mode=translate`: colorization (pix2pix: Isola et al. 2017, arXiv:1611.07004)."""

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import degradations
from dcgan_jax.tasks import image_to_image
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import output_folder

KIND = 'gray'


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
    path, summary = translate(
        options.workdir, options.config, options.out, options.images, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [summary, f'pictures: {path}']))


def translate(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    image_folder: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Colorize images with a U-Net or by latent optimization.

    See `super_resolve` for the arguments and the result. Results are written to
    `workdir/translation` by default; the grayscale inputs serve as the baseline.
    """
    task = image_to_image.open_task(workdir, overrides, KIND, which, seed)
    out = output_folder(out, workdir, 'translation', task.config, image_folder)
    if image_folder is not None:
        user_images = image_to_image.read_user_images(
            image_folder, task.image_shape[-1], task.config.data,
            image_to_image.required_side(task),
        )  # fmt: skip
        image_to_image.check_multiple(image_folder, user_images, task)
        gray = degradations.to_gray(image_to_image.to_float(user_images.pixels))
        inputs = degradations.with_full_mask(degradations.quantize(gray))
        restored = task.restore(np.asarray(inputs))
        return image_to_image.write_images(out, user_images, restored), ''
    data = image_to_image.load_evaluation_images(task, num, seed)
    restored = {
        'gray': image_to_image.known_pixels(data.inputs),
        task.method: task.restore(data.inputs),
    }
    metrics = image_to_image.compute_metrics(task, data, restored)
    return image_to_image.write(out, f'color_{task.method}', task, data, restored, metrics)

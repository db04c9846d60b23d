"""`--mode=translate`: colorization (pix2pix: Isola et al. 2017, arXiv:1611.07004)."""

import numpy as np

from dcgan_jax.data import degradations, images
from dcgan_jax.tasks import image_to_image, restoration_evaluation
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder

KIND = 'gray'


def run(options: TaskOptions) -> TaskResult:
    """Colorize images with a U-Net or by latent optimization.

    The grayscale inputs are the baseline. See `super_resolve.run` for the files, the options
    (`out` defaults to `workdir/translation`), the result and the errors.
    """
    task = image_to_image.open_task(options, KIND)
    out = output_folder(options, 'translation', task.config, task.check_workdir)
    if options.images is not None:
        user_images = image_to_image.read_task_images(options.images, task)
        return image_to_image.restore_images(task, user_images, gray_inputs, out)
    data = restoration_evaluation.load_images(task, options.num, options.seed)
    baselines = {'gray': image_to_image.known_pixels(data.inputs)}
    return restoration_evaluation.evaluate(task, data, baselines, out, 'color')


def gray_inputs(pixels: np.ndarray) -> np.ndarray:
    """Return inputs, float32 `[N, H, W, C + 1]`, from images to colorize, uint8 `[N, H, W, C]`."""
    gray = degradations.quantize(degradations.to_gray(images.to_float(pixels)))
    return np.asarray(degradations.with_full_mask(gray))

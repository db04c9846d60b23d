"""`--mode=super_resolve`: super-resolution."""

import functools

import numpy as np
import PIL.Image

from dcgan_jax.data import degradations, images
from dcgan_jax.tasks import image_to_image, restoration_evaluation
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder

KIND = 'low_resolution'


def run(options: TaskOptions) -> TaskResult:
    """Upsample images with a U-Net or by latent optimization (PULSE).

    With `images`, each upsampled image is written to `NAME.png`. Otherwise, images of
    `config.evaluation.split` are downsampled and restored, and `restoration_evaluation.evaluate`
    writes the results. The baselines are bicubic and Lanczos upsampling.

    Args:
        options: Uses `workdir` (of a run trained for this task, or of a GAN with latent inputs),
            `config` (see `image_to_image.open_task`), `out` (defaults to
            `workdir/super_resolution`), `images`, `num` (number of images of the split, by default
            1,000 or, for latent optimization, 8), `seed` (of the choice of images and of the
            initial latents) and `checkpoint`.

    Returns:
        Path of the grid and the metrics; with `images`, only the folder.

    Raises:
        UserError: If the run, the images or the config are not suitable.
    """
    task = image_to_image.open_task(options, KIND)
    out = output_folder(options, 'super_resolution', task.config, task.check_workdir)
    scale = task.config.input.scale
    if options.images is not None:
        user_images = image_to_image.read_task_images(options.images, task, scale)
        to_inputs = functools.partial(upsampled_inputs, scale=scale)
        return image_to_image.restore_images(task, user_images, to_inputs, out, scale)
    data = restoration_evaluation.load_images(task, options.num, options.seed)
    baselines = {
        'bicubic': image_to_image.known_pixels(data.inputs),
        'lanczos': lanczos(data.real, scale),
    }
    return restoration_evaluation.evaluate(task, data, baselines, out, f'x{scale}')


def upsampled_inputs(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Return inputs of the generator for low-resolution images.

    Args:
        pixels: Images, uint8 `[N, h, w, C]`.
        scale: Factor by which they are upsampled.

    Returns:
        Upsampled images with a mask channel, float32 `[N, h * scale, w * scale, C + 1]`.
    """
    upsampled = degradations.upsample(images.to_float(pixels), scale)
    return np.asarray(degradations.with_full_mask(upsampled))


def lanczos(real: np.ndarray, scale: int) -> np.ndarray:
    """Downsample like `degradations.sample_inputs` and upsample with Pillow's Lanczos filter."""
    small = np.asarray(images.to_uint8(degradations.downsample(images.to_float(real), scale)))
    large = []
    for pixels in small:
        picture = PIL.Image.fromarray(pixels.squeeze())
        size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
        large.append(np.asarray(picture.resize(size, PIL.Image.Resampling.LANCZOS)))
    return np.stack(large).reshape(real.shape)

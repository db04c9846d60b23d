"""`--mode=super_resolve`: super-resolution."""

import numpy as np
import PIL.Image
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import degradations, images
from dcgan_jax.tasks import image_to_image
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import output_folder

KIND = 'low_resolution'


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
    path, summary = super_resolve(
        options.workdir, options.config, options.out, options.images, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [summary, f'pictures: {path}']))


def super_resolve(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    image_folder: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Upsample images with a U-Net or by latent optimization (PULSE).

    Args:
        workdir: Folder of a run trained for this task, or of an unconditional GAN.
        overrides: See `image_to_image.open_task`.
        out: Folder for results; defaults to `workdir/super_resolution`.
        image_folder: Folder of images to upsample; None means to downsample images of
            `config.evaluation.split` and to compute metrics, also for bicubic and Lanczos filters.
        num: Number of images of the split.
        seed: Seed of their order and of the initial latents.
        which: Checkpoint, 'latest' or 'best'.

    Returns:
        Path of the grid or folder, and a one-line summary of the metrics (empty with
        `image_folder`).

    Raises:
        UserError: If the run, the images or the config are not suitable.
    """
    task = image_to_image.open_task(workdir, overrides, KIND, which, seed)
    out = output_folder(out, workdir, 'super_resolution', task.config, image_folder)
    scale = task.config.input.scale
    if image_folder is not None:
        user_images = image_to_image.read_user_images(
            image_folder, task.image_shape[-1], task.config.data,
            image_to_image.required_side(task, scale),
        )  # fmt: skip
        image_to_image.check_multiple(image_folder, user_images, task, scale)
        upsampled = degradations.upsample(image_to_image.to_float(user_images.pixels), scale)
        restored = task.restore(np.asarray(degradations.with_full_mask(upsampled)))
        return image_to_image.write_images(out, user_images, restored), ''
    data = image_to_image.load_evaluation_images(task, num, seed)
    restored = {
        'bicubic': image_to_image.known_pixels(data.inputs),
        'lanczos': lanczos(data.real, scale),
        task.method: task.restore(data.inputs),
    }
    metrics = image_to_image.compute_metrics(task, data, restored)
    name = f'x{scale}_{task.method}'
    return image_to_image.write(out, name, task, data, restored, metrics)


def lanczos(real: np.ndarray, scale: int) -> np.ndarray:
    """Downsample as `degradations.sample_inputs`, then upsample with Pillow's Lanczos filter."""
    small = np.asarray(images.to_uint8(degradations.downsample(images.to_float(real), scale)))
    large = []
    for pixels in small:
        picture = PIL.Image.fromarray(pixels.squeeze())
        size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
        large.append(np.asarray(picture.resize(size, PIL.Image.Resampling.LANCZOS)))
    return np.stack(large).reshape(real.shape)

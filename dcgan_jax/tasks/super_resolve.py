"""`--mode=super_resolve`: images at twice or four times their size."""

import numpy as np
import PIL.Image
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import degradations, images
from dcgan_jax.tasks import image_to_image
from dcgan_jax.tasks.options import TaskOptions

KIND = 'low_resolution'


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path, figures = super_resolve(
        options.workdir, options.config, options.out, options.images, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [figures, f'pictures: {path}']))


def super_resolve(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    pictures: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Enlarges images by a run trained for it, or by searching latents (PULSE).

    Args:
        workdir: of a training run.
        overrides: see `trained_run.merge_config`; of a run of latents `input.scale` counts.
        out: folder for results; `workdir/super_resolution` when None.
        pictures: folder of small pictures, each written larger; None: images of
            `config.evaluation.split` are made small and measured, beside bicubic and Lanczos.
        num: of those.
        seed: of their order, and of latents.
        which: checkpoint, see `restore`.

    Returns:
        The path of the picture or folder, and the figures in a line.

    Raises:
        UserError: run, pictures or config don't allow it.
    """
    task = image_to_image.open_task(workdir, overrides, KIND, which, seed)
    scale = task.config.input.scale
    if pictures is not None:
        read = image_to_image.read_user_images(pictures, task.image_shape[-1], out)
        image_to_image.check_multiple(pictures, read, task, scale)
        large = np.asarray(degradations.upsample(image_to_image.to_float(read.pixels), scale))
        made = task.restore(np.asarray(degradations.with_full_mask(large)))
        return image_to_image.write_images(
            image_to_image.output_folder(out, workdir, 'super_resolution'), read, made
        ), ''
    data = image_to_image.load_evaluation_images(task, num, seed)
    made = {
        'bicubic': image_to_image.known_pixels(data.inputs),
        'lanczos': lanczos(data.real, scale),
        task.method: task.restore(data.inputs),
    }
    found = image_to_image.compute_metrics(task, data, made)
    name = f'x{scale}_{task.method}'
    out = image_to_image.output_folder(out, workdir, 'super_resolution')
    return image_to_image.write(out, name, task, data, made, found)


def lanczos(real: np.ndarray, scale: int) -> np.ndarray:
    """Downsample as `degradations.sample_inputs`, then upsample with Pillow's Lanczos filter."""
    small = np.asarray(images.to_uint8(degradations.downsample(images.to_float(real), scale)))
    large = []
    for pixels in small:
        picture = PIL.Image.fromarray(pixels.squeeze())
        size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
        large.append(np.asarray(picture.resize(size, PIL.Image.Resampling.LANCZOS)))
    return np.stack(large).reshape(real.shape)

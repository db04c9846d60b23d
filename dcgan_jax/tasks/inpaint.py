"""`--mode=inpaint`: inpainting."""

import hashlib
import importlib.util
import os

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import degradations, images
from dcgan_jax.data.image_files import read_image
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.tasks import image_to_image
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import output_folder

KIND = 'masked'
_TELEA_RADIUS = 3  # Pixels.


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
    path, summary = inpaint(
        options.workdir, options.config, options.out, options.images, options.mask, options.num,
        options.seed, options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [summary, f'pictures: {path}']))


def inpaint(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    image_folder: str | None,
    mask: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Fill masked regions with a context encoder or by latent optimization.

    Args:
        workdir: Folder of a run trained for this task, or of an unconditional GAN.
        overrides: See `image_to_image.open_task`.
        out: Folder for results; defaults to `workdir/inpainting`.
        image_folder: Folder of images of the run's size to inpaint; None means to mask images of
            `config.evaluation.split` and to compute metrics, also for mean fill and, if OpenCV is
            installed, Telea 2004.
        mask: Image file of the mask, whose white pixels are missing; defaults to
            `config.input.mask`.
        num: Number of images of the split.
        seed: Seed of their order, of the masks and of the initial latents.
        which: Checkpoint, 'latest' or 'best'.

    Returns:
        Path of the grid or folder, and a one-line summary of the metrics (empty with
        `image_folder`).

    Raises:
        UserError: If the run, the images, the mask or the config are not suitable.
    """
    task = image_to_image.open_task(workdir, overrides, KIND, which, seed)
    out = output_folder(out, workdir, 'inpainting', task.config, image_folder)
    user_images = None
    if image_folder is not None:
        user_images = image_to_image.read_user_images(
            image_folder, task.image_shape[-1], task.config.data, task.image_shape[0]
        )
        image_to_image.check_size(image_folder, user_images, task.image_shape[:2])
    holes = None if mask is None else read_mask(mask, task.image_shape[:2])
    if user_images is not None:
        real = images.to_float(user_images.pixels)
        if holes is None:
            mask_function = degradations.MASK_FUNCTIONS[task.config.input.mask]
            key = purpose_key(seed, Purpose.SAMPLES)
            holes = mask_function(key, real.shape, task.config.input.mask_ratio)
        restored = task.restore(np.asarray(degradations.apply_mask(real, holes)))
        return image_to_image.write_images(out, user_images, restored), ''
    data = image_to_image.load_evaluation_images(task, num, seed)
    if holes is not None:
        data = data._replace(
            inputs=np.asarray(degradations.apply_mask(images.to_float(data.real), holes))
        )
    restored = {'mean fill': mean_fill(data.inputs)}
    if importlib.util.find_spec('cv2'):
        restored['Telea'] = telea(data.inputs)
    restored[task.method] = task.restore(data.inputs)
    metrics = image_to_image.compute_metrics(task, data, restored, holes=True)
    name = f'{task.config.input.mask if mask is None else "file"}_{task.method}'
    inputs = None
    if holes is not None:
        digest = hashlib.sha256(holes.tobytes()).hexdigest()
        inputs = {'kind': KIND, 'mask': mask, 'mask_sha256': digest}
    return image_to_image.write(out, name, task, data, restored, metrics, inputs)


def read_mask(path: str, size: tuple[int, int]) -> np.ndarray:
    """Read a mask from an image file, float32 `[1, H, W, 1]`: 1 (missing) where it is white.

    Args:
        path: Path of the image; values above 127 are white.
        size: Expected (H, W).

    Raises:
        UserError: If the file cannot be read, has another size, or is all white or all black.
    """
    if not os.path.isfile(os.path.expanduser(path)):
        raise UserError(f'--mask={path} is not a file: pass the path of an image')
    try:
        pixels = read_image(path, 'L')[..., 0]
    except UserError as error:
        raise UserError(f'--mask: {error}') from error
    if pixels.shape != size:
        raise UserError(
            f'--mask={path} has {pixels.shape[1]}x{pixels.shape[0]} pixels: this run takes '
            f'masks of {size[1]}x{size[0]}'
        )
    holes = pixels > 127
    if holes.all() or not holes.any():
        what = 'white (or transparent)' if holes.all() else 'black'
        raise UserError(
            f'--mask={path} is entirely {what}: paint the missing pixels white and the others black'
        )
    return holes.astype(np.float32)[None, :, :, None]


def mean_fill(inputs: np.ndarray) -> np.ndarray:
    """Fill masked pixels with the mean color of the known pixels."""
    known, holes = inputs[..., :-1], inputs[..., -1:]
    mean = known.sum(axis=(1, 2), keepdims=True) / (1.0 - holes).sum(axis=(1, 2), keepdims=True)
    return np.asarray(images.to_uint8(known + holes * mean))


def telea(inputs: np.ndarray) -> np.ndarray:
    """Fill masked pixels with OpenCV's fast marching method (Telea 2004)."""
    import cv2

    holes = (inputs[..., -1] * 255).astype(np.uint8)
    filled = [
        cv2.inpaint(np.ascontiguousarray(pixels), hole, _TELEA_RADIUS, cv2.INPAINT_TELEA)
        for pixels, hole in zip(image_to_image.known_pixels(inputs), holes, strict=True)
    ]
    return np.stack(filled).reshape(*inputs.shape[:3], -1)

"""`--mode=inpaint`: inpainting."""

import hashlib
import importlib.util
import os

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import degradations, images
from dcgan_jax.data.image_files import read_image
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.tasks import image_to_image, restoration_evaluation
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder

KIND = 'masked'
_TELEA_RADIUS = 3  # Pixels.


def run(options: TaskOptions) -> TaskResult:
    """Fill masked regions with a context encoder or by latent optimization.

    The baselines are the mean color and, if OpenCV is installed, Telea 2004. See
    `super_resolve.run` for the files, the result, the errors and further options.

    Args:
        options: Also uses `mask` (defaults to `config.input.mask`). `out` defaults to
            `workdir/inpainting`; `images` must have the size of the run's images; `seed` is also
            that of random masks.
    """
    task = image_to_image.open_task(options, KIND)
    out = output_folder(options, 'inpainting', task.config, task.check_workdir)
    holes = None
    if options.mask is not None:
        holes = read_mask(options.mask, task.image_shape[:2])
        _check_not_replaced(options.mask, out.path)
    if options.images is not None:
        user_images = image_to_image.read_images_of_shape(
            options.images, task.config.data, task.image_shape
        )
        if holes is None:
            holes = _sample_mask(task.config.input, user_images.pixels.shape, options.seed)
        inputs = mask_images(user_images.pixels, holes)
        return image_to_image.write_images(out, user_images, task.restore(inputs))
    data = restoration_evaluation.load_images(task, options.num, options.seed)
    name = task.config.input.mask
    if holes is not None:
        name = 'file'
        digest = hashlib.sha256(holes.tobytes()).hexdigest()
        description = {'kind': KIND, 'mask': os.fspath(options.mask), 'mask_sha256': digest}
        data = data._replace(inputs=mask_images(data.real, holes), description=description)
    baselines = {'mean_color': mean_fill(data.inputs)}
    if importlib.util.find_spec('cv2'):
        baselines['telea'] = telea(data.inputs)
    return restoration_evaluation.evaluate(task, data, baselines, out, name)


def _check_not_replaced(mask: epath.PathLike, out: epath.Path) -> None:
    """Raise `UserError` if a mask is in the folder of the results, one of which may replace it."""
    path = os.path.expanduser(mask)
    # For a link: the folder of the link and the folder of its target.
    folders = [os.path.dirname(path) or os.curdir, os.path.dirname(os.path.realpath(path))]
    if os.path.isdir(out) and any(os.path.samefile(folder, out) for folder in folders):
        raise UserError(
            f'--mask={mask} is in the folder of the results, which may replace it: move the mask, '
            'or set --out to another folder'
        )


def _sample_mask(fields: ConfigDict, shape: tuple[int, ...], seed: int) -> jax.Array:
    """Return masks as in `config.input`, float32 `[N, H, W, 1]`, for images `[N, H, W, C]`."""
    key = purpose_key(seed, Purpose.SAMPLES)
    return degradations.MASK_FUNCTIONS[fields.mask](key, shape, fields.mask_ratio)


def mask_images(pixels: np.ndarray, holes: np.ndarray | jax.Array) -> np.ndarray:
    """Return inputs, float32 `[N, H, W, C + 1]`, from images, uint8 `[N, H, W, C]`, and masks."""
    return np.asarray(degradations.apply_mask(images.to_float(pixels), holes))


def read_mask(path: epath.PathLike, size: tuple[int, int]) -> np.ndarray:
    """Read a mask from an image file, float32 `[1, H, W, 1]`: 1 for white pixels, else 0.

    Args:
        path: Path of the image; values above 127 are white.
        size: Expected (H, W).

    Raises:
        UserError: If the file cannot be read, has a different size, or is all white or all black.
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
        missing = 'black pixels (transparent ones are white)' if holes.all() else 'white pixels'
        raise UserError(
            f'--mask={path} has no {missing}: paint the missing pixels white and the others black'
        )
    return holes.astype(np.float32)[None, :, :, None]


def mean_fill(inputs: np.ndarray) -> np.ndarray:
    """Fill masked pixels with the mean color of the known pixels; with gray if there are none."""
    known, holes = inputs[..., :-1], inputs[..., -1:]
    count = (1.0 - holes).sum(axis=(1, 2), keepdims=True)
    mean = known.sum(axis=(1, 2), keepdims=True) / np.maximum(count, 1.0)
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

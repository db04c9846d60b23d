"""`--mode=inpaint`: holes in images filled."""

import hashlib
import importlib.util
import os

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import degradations, images
from dcgan_jax.data.image_folder import read_image
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.prng import Purpose, purpose_key
from dcgan_jax.tasks import image_to_image
from dcgan_jax.tasks.options import TaskOptions

KIND = 'masked'
_TELEA_RADIUS = 3  # pixels


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path, figures = inpaint(
        options.workdir, options.config, options.out, options.images, options.mask, options.num,
        options.seed, options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [figures, f'pictures: {path}']))


def inpaint(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    pictures: str | None,
    mask: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Fills holes by a run trained for it (a context encoder), or by searching latents.

    Args:
        workdir: of a training run.
        overrides: see `trained_run.merge_config`; its `input.mask` and `.missing` count.
        out: folder for results; `workdir/inpainting` when None.
        pictures: folder of pictures of the run's size, each written without its hole; None: images
            of `config.evaluation.split` are measured, beside mean fill and Telea 2004 (with
            OpenCV).
        mask: a picture of the holes, white where something is missing; None: `config.input.mask`.
        num: images that are measured.
        seed: of their order, of masks and of latents.
        which: checkpoint, see `restore`.

    Returns:
        The path of the picture or folder, and the figures in a line.

    Raises:
        UserError: run, pictures, mask or config don't allow it.
    """
    task = image_to_image.open_task(workdir, overrides, KIND, which, seed)
    read = None
    if pictures is not None:
        read = image_to_image.read_user_images(pictures, task.image_shape[-1], out)
        image_to_image.check_size(pictures, read, task.image_shape[:2])
    holes = None if mask is None else read_mask(mask, task.image_shape[:2])
    if read is not None:
        real = images.to_float(read.pixels)
        if holes is None:
            draw = degradations.MASK_FUNCTIONS[task.config.input.mask]
            key = purpose_key(seed, Purpose.SAMPLES)
            holes = draw(key, real.shape, task.config.input.missing)
        made = task.restore(np.asarray(degradations.apply_mask(real, holes)))
        return image_to_image.write_images(
            image_to_image.output_folder(out, workdir, 'inpainting'), read, made
        ), ''
    data = image_to_image.load_evaluation_images(task, num, seed)
    if holes is not None:
        data = data._replace(
            given=np.asarray(degradations.apply_mask(images.to_float(data.real), holes))
        )
    made = {'mean fill': mean_fill(data.inputs)}
    if importlib.util.find_spec('cv2'):
        made['Telea'] = telea(data.inputs)
    made[task.method] = task.restore(data.inputs)
    found = image_to_image.compute_metrics(task, data, made, holes=True)
    name = f'{task.config.input.mask if mask is None else "file"}_{task.method}'
    out = image_to_image.output_folder(out, workdir, 'inpainting')
    completed = None
    if holes is not None:
        digest = hashlib.sha256(holes.tobytes()).hexdigest()
        completed = {'kind': KIND, 'mask': mask, 'mask_sha256': digest}
    return image_to_image.write(out, name, task, data, made, found, completed)


def read_mask(path: str, size: tuple[int, int]) -> np.ndarray:
    """Holes float32 `[1, H, W, 1]` of a picture: 1 where it is white (above half), else 0.

    Raises:
        UserError: it can't be read, is of another size, or has no hole or nothing else.
    """
    if not os.path.isfile(os.path.expanduser(path)):
        raise UserError(f'--mask={path} is no file: give a picture')
    try:
        shown = read_image(path, 'L')[..., 0]
    except UserError as error:
        raise UserError(f'--mask: {error}') from error
    if shown.shape != size:
        raise UserError(
            f'--mask={path} has {shown.shape[1]}x{shown.shape[0]} pixels, the images '
            f'{size[1]}x{size[0]}: give one of that size'
        )
    holes = shown > 127
    if holes.all() or not holes.any():
        what = (
            'is white all over (or transparent): nothing is known'
            if holes.all()
            else 'has no white: no hole'
        )
        raise UserError(f'--mask={path} {what}; paint white what is missing, and nothing else')
    return holes.astype(np.float32)[None, :, :, None]


def mean_fill(given: np.ndarray) -> np.ndarray:
    """Holes filled with the mean colour of what is known of the image."""
    known, holes = given[..., :-1], given[..., -1:]
    mean = known.sum(axis=(1, 2), keepdims=True) / (1.0 - holes).sum(axis=(1, 2), keepdims=True)
    return np.asarray(images.to_uint8(known + holes * mean))


def telea(given: np.ndarray) -> np.ndarray:
    """Holes filled by OpenCV's fast marching (Telea 2004)."""
    import cv2

    holes = (given[..., -1] * 255).astype(np.uint8)
    filled = [
        cv2.inpaint(np.ascontiguousarray(pixels), hole, _TELEA_RADIUS, cv2.INPAINT_TELEA)
        for pixels, hole in zip(image_to_image.known_pixels(given), holes, strict=True)
    ]
    return np.stack(filled).reshape(*given.shape[:3], -1)

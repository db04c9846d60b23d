"""Shared code of super-resolution, inpainting and translation."""

import functools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.configs import default
from dcgan_jax.data import images
from dcgan_jax.data import user_images as user_images_lib
from dcgan_jax.run_description import Run
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import escape
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks import tiling
from dcgan_jax.tasks.latent_optimization import LatentOptimizer
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import OutputFolder
from dcgan_jax.tasks.trained_run import merge_config, restore
from dcgan_jax.train_state import GANState

# Maximum number of output pixels per batch, unless a single image has more.
_MAX_BATCH_PIXELS = 2**22
_MAX_NAME_BYTES = 255 - len('.png')  # The limit of most file systems.


class RestorationTask(NamedTuple):
    """A generator that restores degraded images.

    Attributes:
        run: The run.
        config: The run's config, with the `input` of the task.
        state: The run's state.
        sampler: Sampler of the run's generator.
        restore: Function from inputs `[N, H, W, C + 1]` to images, uint8 `[N, H, W, C]`.
        method: Name of the method in results: 'trained' or 'latent_optimization'.
        check_workdir: See `workdir_guard.presence_check`.
    """

    run: Run
    config: ConfigDict
    state: GANState
    sampler: Sampler
    restore: Callable[[np.ndarray], np.ndarray]
    method: str
    check_workdir: Callable[[], None]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the run's images."""
        return self.run.image_shape


def open_task(options: TaskOptions, kind: str) -> RestorationTask:
    """Load a run trained for `kind`, or a GAN to be used with latent optimization.

    Args:
        options: Uses `workdir`, `checkpoint`, `seed` (of the initial latents) and `config`. The
            group `config.input` is used too: all of its fields for latent optimization, but only
            the mask for a run that was trained for `kind`.
        kind: One of `degradations.KINDS`.

    Raises:
        UserError: If `workdir` contains no run, or the run was trained for another kind.
    """
    trained = restore(options.workdir, options.checkpoint)
    run, networks, state = trained.run, trained.networks, trained.state
    trained_kind = run.config.input.kind
    if trained_kind not in ('latent', kind):
        raise UserError(
            f'{options.workdir} has a run with config.input.kind={trained_kind!r}: use a run with '
            f"{kind!r} or 'latent'"
        )
    config = _task_config(run.config, options.config, kind)
    sampler = Sampler(networks.generator, config)
    sample = functools.partial(sampler, state)
    if trained_kind == kind:
        restore_tiled = functools.partial(tiling.restore, sample, generator=config.generator)
        method, function = 'trained', restore_tiled
    else:
        optimizer = LatentOptimizer(networks, config, sampler, options.seed)
        method, function = 'latent_optimization', functools.partial(optimizer, state)
    return RestorationTask(run, config, state, sampler, function, method, trained.check_workdir)


def _task_config(config: ConfigDict, overrides: ConfigDict | None, kind: str) -> ConfigDict:
    """Return the config of a run with the task fields and the `input` of `overrides`.

    For a run that was trained for `kind`, only the mask of `overrides.input` is used; its default
    values are used only if `overrides.input.kind` equals `kind`.
    """
    merged = merge_config(config, overrides).copy_and_resolve_references().unlock()
    given = (config if overrides is None else overrides).input
    if config.input.kind != kind:
        merged.input = given.copy_and_resolve_references()
        merged.input.kind = kind
    else:
        defaults = default.Config().input
        for name in ('mask', 'mask_ratio'):
            if given.kind == kind or given[name] != getattr(defaults, name):
                merged.input[name] = given[name]
    return merged.lock()


def known_pixels(inputs: np.ndarray) -> np.ndarray:
    """Return the image channels, uint8 `[N, H, W, C]`, of inputs `[N, H, W, C + 1]`."""
    return np.asarray(images.to_uint8(inputs[..., :-1]))


class UserImages(NamedTuple):
    """User-supplied images.

    Attributes:
        names: File names without suffixes, with invalid characters escaped.
        pixels: Images, uint8 `[N, H, W, C]`.
    """

    names: list[str]
    pixels: np.ndarray


def read_user_images(
    folder: epath.PathLike, channels: int, fields: ConfigDict, size: int | None
) -> UserImages:
    """Read all images in a folder and its subfolders.

    The images must have the same size, unless they are cropped and resized (see `size`).

    Args:
        folder: Path of the folder.
        channels: 1 for grayscale or 3 for RGB images; grayscale is converted to RGB.
        fields: The run's `config.data`.
        size: Size to which images are cropped and resized if `image_size` of `fields` is set; None
            if the task accepts any size, so that images are never resized.

    Raises:
        UserError: If there are no images, an image cannot be decoded, the sizes differ, color
            images are given to a grayscale run, two results would have the same name, or a name is
            too long.
    """
    resized = size if size and fields.image_size else 0
    files = user_images_lib.open_folder(folder, fields, resized)
    pixels = np.concatenate(list(user_images_lib.read_folder(files, resized)))
    names = [escape('_'.join(PurePosixPath(name).with_suffix('').parts)) for name in files.names]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(
            f'--images={folder} has {count} files whose results would have the name {name}.png '
            '(they differ in suffixes or folders only): rename them'
        )
    if long := [name for name in names if len(name.encode()) > _MAX_NAME_BYTES]:
        raise UserError(f'--images={folder}: the name {long[0]!r} is too long: rename the file')
    if pixels.shape[3] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=3)
    if pixels.shape[3] != channels:
        raise UserError(
            f'--images={folder} has RGB images, but the run was trained on grayscale images: '
            'convert them to grayscale'
        )
    return UserImages(names, pixels)


def read_images_of_shape(
    folder: epath.PathLike, fields: ConfigDict, shape: tuple[int, int, int]
) -> UserImages:
    """Read all images in a folder and check that they have a given shape (H, W, C).

    Args:
        folder: See `read_user_images`.
        fields: See `read_user_images`.
        shape: The shape; the images are cropped and resized to H if `fields.image_size` is set.

    Raises:
        UserError: See `read_user_images`, or if the images have another size.
    """
    user_images = read_user_images(folder, shape[2], fields, shape[0])
    height, width = user_images.pixels.shape[1:3]
    if (height, width) != shape[:2]:
        raise UserError(
            f'--images={folder} has images of {width}x{height} pixels: this run requires images of '
            f'{shape[1]}x{shape[0]}; crop or resize them'
        )
    return user_images


def size_multiple(config: ConfigDict, scale: int = 1) -> int:
    """Return the number by which the height and width of a U-Net's images must be divisible.

    Args:
        config: Config of the task.
        scale: Factor by which the images are upsampled before they are passed to the U-Net.
    """
    strides = math.prod(config.generator.strides)
    return strides // math.gcd(strides, scale)


def read_task_images(folder: epath.PathLike, task: RestorationTask, scale: int = 1) -> UserImages:
    """Read all images in a folder and check that the task supports their size times `scale`.

    A U-Net accepts multiples of its total stride; latent optimization accepts only the size of the
    training images.

    Raises:
        UserError: See `read_user_images`, or if the task does not accept the size of the images.
    """
    height, width, channels = task.image_shape
    if task.method != 'trained':
        shape = height // scale, width // scale, channels
        return read_images_of_shape(folder, task.config.data, shape)
    user_images = read_user_images(folder, channels, task.config.data, None)
    height, width = user_images.pixels.shape[1:3]
    multiple = size_multiple(task.config, scale)
    if height % multiple or width % multiple:
        raise UserError(
            f'--images={folder} has images of {width}x{height} pixels: width and height must be '
            f'divisible by {multiple}; crop or pad the images'
        )
    return user_images


def restore_images(
    task: RestorationTask,
    user_images: UserImages,
    to_inputs: Callable[[np.ndarray], np.ndarray],
    out: OutputFolder,
    scale: int = 1,
) -> TaskResult:
    """Restore images in batches to limit memory use, and write each to `NAME.png` in `out`.

    Args:
        task: The task, see `open_task`.
        user_images: The images to which `to_inputs` is applied.
        to_inputs: Function from images, uint8 `[N, H, W, C]`, to inputs of the generator.
        out: Folder of the results.
        scale: Factor by which `to_inputs` upsamples.

    Returns:
        The path `out`.
    """
    height, width = user_images.pixels.shape[1:3]
    count = max(1, _MAX_BATCH_PIXELS // (height * width * scale**2))
    for first in range(0, len(user_images.names), count):
        batch = UserImages(*(field[first : first + count] for field in user_images))
        write_images(out, batch, task.restore(to_inputs(batch.pixels)))
    return TaskResult(out.path)


def write_images(out: OutputFolder, user_images: UserImages, restored: np.ndarray) -> TaskResult:
    """Write each restored image to `NAME.png` in `out`, and return the path `out`.

    Existing files of these names are replaced, with a warning.
    """
    if existing := sum((out.path / f'{name}.png').exists() for name in user_images.names):
        logging.warning('replacing existing files in %s (number of files: %d)', out.path, existing)
    for name, pixels in zip(user_images.names, restored, strict=True):
        images.write_png(out.file(f'{name}.png'), pixels)
    return TaskResult(out.path)

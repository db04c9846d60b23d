"""Shared code of super-resolution, inpainting and translation."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import image_source, images
from dcgan_jax.data import user_images as user_images_lib
from dcgan_jax.metrics.evaluator import Evaluator
from dcgan_jax.metrics.psnr_ssim import psnr, ssim
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import escape, write_atomic
from dcgan_jax.sampling import Sampler, read_images
from dcgan_jax.tasks import tiling
from dcgan_jax.tasks.latent_optimization import LatentOptimizer
from dcgan_jax.tasks.trained_run import merge_config, open_split, restore
from dcgan_jax.train_state import GANState

NUM, NUM_OPTIMIZED = 1_000, 64  # Default numbers of images; latent optimization is slower.
_GRID_ROWS = 16
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
    """

    run: Run
    config: ConfigDict
    state: GANState
    sampler: Sampler
    restore: Callable[[np.ndarray], np.ndarray]
    method: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the run's images."""
        return self.run.image_shape


def open_task(
    workdir: epath.PathLike, overrides: ConfigDict | None, kind: str, which: str, seed: int
) -> RestorationTask:
    """Restore a run trained for `kind`, or an unconditional GAN to use with latent optimization.

    Args:
        workdir: Folder of a training run.
        overrides: See `merge_config`. `input` is also overridden: all of it for latent
            optimization, only the mask for a run that was trained for inpainting.
        kind: One of `degradations.KINDS`.
        which: Checkpoint, 'latest' or 'best'.
        seed: Seed of the initial latents.

    Raises:
        UserError: If there is no such run or it was trained for another kind.
    """
    trained = restore(workdir, which)
    run, networks, state = trained.run, trained.networks, trained.state
    config = merge_config(run.config, overrides)
    trained_kind = run.config.input.kind
    if trained_kind not in ('latent', kind):
        raise UserError(
            f'{workdir} has a run with config.input.kind={trained_kind!r}: use a run with '
            f"{kind!r} or 'latent'"
        )
    if trained_kind == kind:
        if overrides is not None and overrides.input.kind == kind:
            with config.unlocked():
                config.input.update(
                    mask=overrides.input.mask, mask_ratio=overrides.input.mask_ratio
                )
        sampler = Sampler(networks.generator, config)
        restore_tiled = functools.partial(
            tiling.restore, functools.partial(sampler, state), generator=config.generator
        )
        return RestorationTask(run, config, state, sampler, restore_tiled, 'trained')
    config = config.copy_and_resolve_references().unlock()
    config.input = (
        run.config if overrides is None else overrides
    ).input.copy_and_resolve_references()
    config.input.kind = kind
    config.lock()
    sampler = Sampler(networks.generator, config)
    optimizer = LatentOptimizer(networks, config, sampler, seed)
    return RestorationTask(
        run, config, state, sampler, lambda x: optimizer(state, x), 'latent_optimization'
    )


class EvaluationImages(NamedTuple):
    """Images of a split and the degraded inputs computed from them.

    Attributes:
        real: Original images, uint8 `[N, H, W, C]`.
        inputs: Degraded images with a mask channel, float32 `[N, H, W, C + 1]`.
        source: Source of the images.
        seed: Seed of their order.
    """

    real: np.ndarray
    inputs: np.ndarray
    source: image_source.ImageSource
    seed: int


def load_evaluation_images(task: RestorationTask, num: int | None, seed: int) -> EvaluationImages:
    """Return `num` images of `config.evaluation.split` in a random order that depends on `seed`."""
    num = num or (NUM if task.method == 'trained' else NUM_OPTIMIZED)
    source = open_split(task.run, task.config, task.config.evaluation.split)
    if source.image_shape != task.image_shape:
        raise UserError(
            f'{source.name} {source.split} has images of shape {source.image_shape}, but the run '
            f'was trained on {task.image_shape}: use the data set of the run'
        )
    real, inputs = read_images(seed, num, source), task.sampler.inputs(seed, num, source)
    return EvaluationImages(real, inputs, source, seed)


class MetricTable(NamedTuple):
    """Metrics of several restoration methods.

    Attributes:
        table: Metric values by method and metric name.
        protocol: Settings that the values depend on.
    """

    table: dict[str, dict[str, float]]
    protocol: dict[str, Any]


def compute_metrics(
    task: RestorationTask,
    data: EvaluationImages,
    restored: dict[str, np.ndarray],
    holes: bool = False,
) -> MetricTable:
    """Compute PSNR, SSIM and, if in `config.evaluation.metrics`, the Fréchet distance.

    Args:
        task: The task.
        data: The original images.
        restored: Restored images, uint8 `[N, H, W, C]`, by method.
        holes: Whether to compute PSNR and SSIM over masked pixels only.
    """
    protocol = {'psnr_and_ssim_of': 'holes' if holes else 'whole images'}
    mask = data.inputs[..., -1:] if holes else None
    evaluator = None
    if 'frechet_distance' in task.config.evaluation.metrics:
        evaluation = task.config.evaluation.copy_and_resolve_references()
        with evaluation.unlocked():
            evaluation.metrics = ('frechet_distance',)
        evaluator = Evaluator(evaluation, data.source)
    table = {}
    for method, pixels in restored.items():
        row = {'psnr': float(np.mean(psnr(pixels, data.real, mask)))}
        similarity = ssim(pixels, data.real, mask)
        if np.isfinite(similarity).any():  # SSIM is undefined close to the border.
            row['ssim'] = float(np.nanmean(similarity))
        if evaluator is not None:
            result = evaluator([pixels], len(pixels), {})
            row[result.labels['frechet_distance']] = result.values['frechet_distance']
            protocol |= result.protocol
        table[method] = row
    return MetricTable(table, protocol)


def write(
    out: epath.Path,
    name: str,
    task: RestorationTask,
    data: EvaluationImages,
    restored: dict[str, np.ndarray],
    metrics: MetricTable,
    inputs: dict[str, Any] | None = None,
) -> tuple[epath.Path, str]:
    """Write metrics to `NAME.json` and a grid to `NAME.png`.

    Each row of the grid shows the input, the result of each method and the original image.

    Args:
        out: Existing folder.
        name: File name without suffix.
        task: The task.
        data: The original images and inputs.
        restored: Restored images, uint8 `[N, H, W, C]`, by method.
        metrics: Their metrics.
        inputs: Description of the inputs; defaults to `config.input`.

    Returns:
        Path of the grid and a one-line summary.
    """
    content = {
        'metrics': metrics.table,
        'protocol': metrics.protocol,
        'num': len(data.real),
        'data_set': data.source.name,
        'split': data.source.split,
        'step': int(task.state.step),
        'seed': data.seed,
        'input': inputs or dict(task.config.input),
    }
    write_atomic(out / f'{name}.json', f'{json.dumps(content, indent=2)}\n'.encode())
    columns = [known_pixels(data.inputs), *restored.values(), data.real]
    rows = np.stack([column[:_GRID_ROWS] for column in columns], axis=1)
    path = images.write_png(
        out / f'{name}.png', images.grid(rows.reshape(-1, *rows.shape[2:]), columns=len(columns))
    )
    return path, _format(metrics.table)


def known_pixels(inputs: np.ndarray) -> np.ndarray:
    """Return the image channels, uint8 `[N, H, W, C]`, of inputs `[N, H, W, C + 1]`."""
    return np.asarray(images.to_uint8(inputs[..., :-1]))


def _format(table: dict[str, dict[str, float]]) -> str:
    return ' | '.join(
        f'{method}: ' + ', '.join(f'{name} {value:.4g}' for name, value in row.items())
        for method, row in table.items()
    )


class UserImages(NamedTuple):
    """User-supplied images.

    Attributes:
        names: File names without suffixes, with invalid characters escaped.
        pixels: Images, uint8 `[N, H, W, C]`.
    """

    names: list[str]
    pixels: np.ndarray


def read_user_images(
    folder: str, channels: int, fields: ConfigDict, size: int | None
) -> UserImages:
    """Read all images in a folder and its subfolders.

    The images must have the same size, unless they are cropped and resized (see `size`).

    Args:
        folder: Path of the folder.
        channels: 1 for grayscale or 3 for RGB images; grayscale is converted to RGB.
        fields: The run's `config.data`.
        size: Size to which images are cropped and resized if `image_size` of `fields` is set; None
            if the task accepts any size.

    Raises:
        UserError: If there are no images, one cannot be decoded, the sizes differ, color images are
            given for grayscale, or two results would have the same name.
    """
    resized = size if size and fields.image_size else 0
    files = user_images_lib.open_folder(folder, fields, resized)
    pixels = np.concatenate(list(user_images_lib.read_folder(files, resized)))
    names = [escape('_'.join(PurePosixPath(name).with_suffix('').parts)) for name in files.names]
    if len(set(names)) < len(names):
        raise UserError(
            f'--images={folder} has files whose results would have the same name (they '
            'differ in suffixes or folders only): rename them'
        )
    if long := [name for name in names if len(name.encode()) > _MAX_NAME_BYTES]:
        raise UserError(f'--images={folder}: the name {long[0]!r} is too long: rename it')
    if pixels.shape[3] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=3)
    if pixels.shape[3] != channels:
        raise UserError(
            f'--images={folder} has RGB images, but the run was trained on grayscale images: '
            'convert them to grayscale'
        )
    return UserImages(names, pixels)


def check_size(folder: str, user_images: UserImages, size: tuple[int, int]) -> None:
    """Raise `UserError` unless the images have the given size (H, W)."""
    height, width = user_images.pixels.shape[1:3]
    if (height, width) != size:
        raise UserError(
            f'--images={folder} has images of {width}x{height} pixels: this run takes images of '
            f'{size[1]}x{size[0]}; crop or resize them'
        )


def required_side(task: RestorationTask, scale: int = 1) -> int | None:
    """Return the required side of input images; None for U-Nets, which accept several sizes."""
    return None if task.method == 'trained' else task.image_shape[0] // scale


def check_multiple(
    folder: str, user_images: UserImages, task: RestorationTask, scale: int = 1
) -> None:
    """Raise `UserError` unless the size of the images, multiplied by `scale`, suits the task.

    A U-Net accepts multiples of its total stride; latent optimization accepts a single size.
    """
    height, width = user_images.pixels.shape[1:3]
    if task.method != 'trained':
        check_size(folder, user_images, tuple(side // scale for side in task.image_shape[:2]))
        return
    strides = math.prod(task.config.generator.strides)
    multiple = strides // math.gcd(strides, scale)
    if height % multiple or width % multiple:
        raise UserError(
            f'--images={folder} has images of {width}x{height} pixels: width and height must be '
            f'divisible by {multiple}; crop or pad the images'
        )


def write_images(out: epath.Path, user_images: UserImages, restored: np.ndarray) -> epath.Path:
    """Write each restored image to `NAME.png` and return the folder."""
    for name, pixels in zip(user_images.names, restored, strict=True):
        images.write_png(out / f'{name}.png', pixels)
    return out


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 images `[N, H, W, C]` to float32 in [-1, 1]."""
    return np.asarray(images.to_float(np.asarray(pixels)))

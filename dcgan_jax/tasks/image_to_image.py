"""What super-resolution, inpainting and translation share: images completed, measured and shown."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import run_dir
from dcgan_jax.data import images, sources
from dcgan_jax.data.image_folder import ImageFolder
from dcgan_jax.metrics.evaluator import Evaluator
from dcgan_jax.metrics.psnr_ssim import psnr, ssim
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import Sampler, read_images
from dcgan_jax.tasks.latent_optimization import LatentOptimizer
from dcgan_jax.tasks.trained_run import merge_config, restore
from dcgan_jax.train_state import GANState

NUM, NUM_OPTIMIZED = 1_000, 64  # images by default; searching takes long
_SHOWN = 16  # images of the picture


class RestorationTask(NamedTuple):
    """A run that completes images.

    Attributes:
        config: of the run, with the `input` to complete.
        state: of the run.
        sampler: of its generator.
        complete: inputs `[N, H, W, C + 1]` to images uint8 `[N, H, W, C]`.
        method: what that is called in figures.
        image_shape: (H, W, C) of the run's images.
    """

    config: ConfigDict
    state: GANState
    sampler: Sampler
    complete: Callable[[np.ndarray], np.ndarray]
    method: str
    image_shape: tuple[int, int, int]


def open_task(
    workdir: epath.PathLike, overrides: ConfigDict | None, kind: str, which: str, seed: int
) -> RestorationTask:
    """Restores a run that was trained for `kind`, or one of latents, which are searched.

    Args:
        workdir: of a training run.
        overrides: See `merge_config`; `input` counts too: all of it in a run of latents, in one
            trained for masks these.
        kind: one of `inputs.KINDS`.
        which: checkpoint, see `restore`.
        seed: of the latents to start from.

    Raises:
        UserError: there is no such run, or it was trained for another kind.
    """
    run, networks, state = restore(workdir, which)
    config = merge_config(run.config, overrides)
    trained = run.config.input.kind
    if trained not in ('latent', kind):
        raise UserError(
            f'{workdir} holds a run with config.input.kind={trained!r}, which does not do this: '
            f'give one with {kind!r}, or one of latents'
        )
    if trained == kind:
        if overrides is not None and overrides.input.kind == kind:
            with config.unlocked():
                config.input.update(mask=overrides.input.mask, missing=overrides.input.missing)
        sampler = Sampler(networks.generator, config)
        return RestorationTask(
            config, state, sampler, lambda x: sampler(state, x), 'trained', run.image_shape
        )
    config = config.copy_and_resolve_references().unlock()
    config.input = (
        run.config if overrides is None else overrides
    ).input.copy_and_resolve_references()
    config.input.kind = kind
    config.lock()
    sampler = Sampler(networks.generator, config)
    search = LatentOptimizer(networks, config, sampler, seed)
    return RestorationTask(
        config, state, sampler, lambda x: search(state, x), 'search', run.image_shape
    )


class EvaluationImages(NamedTuple):
    """Images of a split, and what a task gets of them.

    Attributes:
        real: uint8 `[N, H, W, C]`.
        given: float32 `[N, H, W, C + 1]`.
        source: where they come from.
        seed: of their order.
    """

    real: np.ndarray
    given: np.ndarray
    source: sources.ImageSource
    seed: int


def load_evaluation_images(task: RestorationTask, num: int | None, seed: int) -> EvaluationImages:
    """`num` images of `config.evaluation.split`, in an order of `seed`."""
    num = num or (NUM if task.method == 'trained' else NUM_OPTIMIZED)
    source = sources.open_split(task.config, task.config.evaluation.split)
    if source.image_shape != task.image_shape:
        raise UserError(
            f'{source.name} {source.split} has images of {source.image_shape}, the run of '
            f'{task.image_shape}: use the data set of the run'
        )
    real, given = read_images(seed, num, source), task.sampler.inputs(seed, num, source)
    return EvaluationImages(real, given, source, seed)


class MetricTable(NamedTuple):
    """How near methods came.

    Attributes:
        table: figures by name, by method.
        protocol: what they depend on beside the images.
    """

    table: dict[str, dict[str, float]]
    protocol: dict[str, Any]


def compute_metrics(
    task: RestorationTask, data: EvaluationImages, made: dict[str, np.ndarray], holes: bool = False
) -> MetricTable:
    """PSNR, SSIM and, if `config.evaluation.metrics` has it, the Fréchet distance of each method.

    Args:
        task: which made them.
        data: what they should be.
        made: images uint8 `[N, H, W, C]` by method.
        holes: whether PSNR and SSIM count what was missing only.
    """
    protocol = {'psnr_and_ssim_of': 'holes' if holes else 'whole images'}
    where = data.inputs[..., -1:] if holes else None
    evaluator = None
    if 'frechet_distance' in task.config.evaluation.metrics:
        evaluation = task.config.evaluation.copy_and_resolve_references()
        with evaluation.unlocked():
            evaluation.metrics = ('frechet_distance',)
        evaluator = Evaluator(evaluation, data.source)
    table = {}
    for method, pixels in made.items():
        row = {'psnr': float(np.mean(psnr(pixels, data.real, where)))}
        similar = ssim(pixels, data.real, where)
        if np.isfinite(similar).any():  # Not of small images, or of holes near the border alone.
            row['ssim'] = float(np.nanmean(similar))
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
    made: dict[str, np.ndarray],
    found: MetricTable,
    completed: dict[str, Any] | None = None,
) -> tuple[epath.Path, str]:
    """Writes `NAME.json` with the figures and `NAME.png`, a row for each of the first images.

    Its columns: what was given, each method, the real image. `completed` says what was missing,
    where that is not what `config.input` has.

    Returns:
        The picture's path, and the figures in one line for the terminal.
    """
    content = {
        'figures': found.table,
        'protocol': found.protocol,
        'num': len(data.real),
        'data_set': data.source.name,
        'split': data.source.split,
        'step': int(task.state.step),
        'seed': data.seed,
        'input': completed or dict(task.config.input),
    }
    write_atomic(out / f'{name}.json', f'{json.dumps(content, indent=2)}\n'.encode())
    columns = [known_pixels(data.inputs), *made.values(), data.real]
    rows = np.stack([column[:_SHOWN] for column in columns], axis=1)
    path = images.write_png(
        out / f'{name}.png', images.grid(rows.reshape(-1, *rows.shape[2:]), columns=len(columns))
    )
    return path, _line(found.table)


def known_pixels(given: np.ndarray) -> np.ndarray:
    """What inputs `[N, H, W, C + 1]` show, uint8 `[N, H, W, C]`."""
    return np.asarray(images.to_uint8(given[..., :-1]))


def _line(table: dict[str, dict[str, float]]) -> str:
    return ' | '.join(
        f'{method}: ' + ', '.join(f'{name} {value:.4g}' for name, value in row.items())
        for method, row in table.items()
    )


class UserImages(NamedTuple):
    """A user's pictures.

    Attributes:
        names: of the files, without endings.
        pixels: uint8 `[N, H, W, C]`.
    """

    names: list[str]
    pixels: np.ndarray


def read_user_images(folder: str, channels: int, out: epath.PathLike | None) -> UserImages:
    """Reads all pictures below a folder, of one size, grey or in colour as the run's are.

    Raises:
        UserError: there is none, one can't be decoded, they are of several sizes, or `out`, where
            results go, lies in the folder.
    """
    root = Path(folder).expanduser().absolute()
    if out is not None and Path(out).expanduser().resolve().is_relative_to(root.resolve()):
        raise UserError(
            f'--out={out} lies in --images={folder}: results would take the place of your '
            'pictures, or be taken for some; choose another folder'
        )
    found = ImageFolder(folder, '--images')
    found.check_sizes('give images of one size')
    pixels = np.stack([record['image'] for record in found.__getitems__(list(range(len(found))))])
    names = [
        '_'.join(path.relative_to(root).with_suffix('').parts) for path in map(Path, found.files)
    ]
    if len(set(names)) < len(names):
        raise UserError(f'--images={folder} has files that differ in their endings only: rename')
    if pixels.shape[3] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=3)
    if pixels.shape[3] != channels:
        raise UserError(f'--images={folder} has colours, the run is of grey images: convert them')
    return UserImages(names, pixels)


def check_size(pictures: str, found: UserImages, size: tuple[int, int]) -> None:
    """Refuses pictures that are not of `size`, (H, W).

    Raises:
        UserError: says both.
    """
    height, width = found.pixels.shape[1:3]
    if (height, width) != size:
        raise UserError(
            f'--images={pictures} has pictures of {width}x{height}: give pictures of '
            f'{size[1]}x{size[0]}, as the run'
        )


def check_multiple(pictures: str, found: UserImages, task: RestorationTask, scale: int = 1) -> None:
    """Refuses pictures that the run can't make, `scale` times as large as they are.

    A U-Net makes any size that its strides divide; latents are of the run's size alone.

    Raises:
        UserError: says what can be given.
    """
    height, width = found.pixels.shape[1:3]
    if task.method != 'trained':
        check_size(pictures, found, tuple(side // scale for side in task.image_shape[:2]))
        return
    strides = math.prod(task.config.generator.strides)
    multiple = strides // math.gcd(strides, scale)
    if height % multiple or width % multiple:
        raise UserError(
            f'--images={pictures} has pictures of {width}x{height}: this run takes widths and '
            f'heights that are multiples of {multiple}; crop or pad them'
        )


def write_images(out: epath.Path, pictures: UserImages, completed: np.ndarray) -> epath.Path:
    """Writes `NAME.png` for each; returns the folder."""
    for name, pixels in zip(pictures.names, completed, strict=True):
        images.write_png(out / f'{name}.png', pixels)
    return out


def output_folder(out: epath.PathLike | None, workdir: epath.PathLike, name: str) -> epath.Path:
    """Where results go: `out`, or `NAME` in the workdir."""
    return run_dir.check_writable(out or epath.Path(workdir).expanduser() / name, '--out')


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8 `[N, H, W, C]` as images in [-1, 1]."""
    return np.asarray(images.to_float(np.asarray(pixels)))

"""Metrics of image restoration methods on images of a data set."""

from typing import Any, NamedTuple

import numpy as np
from absl import logging

from dcgan_jax.data import image_source, images
from dcgan_jax.metrics.evaluator import Evaluator
from dcgan_jax.metrics.psnr_ssim import psnr, ssim
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_json
from dcgan_jax.sampling import read_images
from dcgan_jax.tasks.image_to_image import RestorationTask, known_pixels
from dcgan_jax.tasks.options import TaskResult
from dcgan_jax.tasks.outputs import OutputFolder
from dcgan_jax.tasks.trained_run import open_split

# Default numbers of images for U-Nets and for latent optimization, which is slower.
_NUM, _NUM_OPTIMIZED = 1_000, 8
_GRID_ROWS = 16


class EvaluationImages(NamedTuple):
    """Images of a split and the degraded inputs computed from them.

    Attributes:
        real: Original images, uint8 `[N, H, W, C]`.
        inputs: Degraded images with a mask channel, float32 `[N, H, W, C + 1]`.
        description: Settings of the degradation, which are written to the results.
        source: The split that the images belong to.
        seed: Seed of the random choice of images.
    """

    real: np.ndarray
    inputs: np.ndarray
    description: dict[str, Any]
    source: image_source.ImageSource
    seed: int


def load_images(task: RestorationTask, num: int | None, seed: int) -> EvaluationImages:
    """Return `num` images of `config.evaluation.split` in a random order that depends on `seed`.

    If the split has fewer images, all of them are returned, with a warning.
    """
    num = num or (_NUM if task.method == 'trained' else _NUM_OPTIMIZED)
    source = open_split(task.run, task.config, task.config.evaluation.split)
    if source.image_shape != task.image_shape:
        raise UserError(
            f'{source.name} {source.split} has images of shape {source.image_shape}, but the run '
            f'was trained on images of shape {task.image_shape}: use the data set of the run'
        )
    if num > len(source):
        logging.warning('%s %s has only %d images', source.name, source.split, len(source))
        num = len(source)
    real, inputs = read_images(seed, num, source), task.sampler.inputs(seed, num, source)
    return EvaluationImages(real, inputs, dict(task.config.input), source, seed)


def evaluate(
    task: RestorationTask,
    data: EvaluationImages,
    baselines: dict[str, np.ndarray],
    out: OutputFolder,
    name: str,
) -> TaskResult:
    """Restore images and write metrics to `NAME_METHOD.json` and a grid to `NAME_METHOD.png`.

    Each row of the grid shows the input, the result of each method and the original image.

    Args:
        task: The task, see `image_to_image.open_task`.
        data: The original images and inputs.
        baselines: Images restored by other methods, uint8 `[N, H, W, C]`, by method.
        out: Folder of the files.
        name: `NAME` in the file names.

    Returns:
        Path of the grid and the metrics.
    """
    evaluator = _frechet_evaluator(task, data)
    restored = baselines | {task.method: task.restore(data.inputs)}
    table, protocol = compute_metrics(task, data, restored, evaluator)
    content = {
        'metrics': table,
        'protocol': protocol,
        'num': len(data.real),
        'data_set': data.source.name,
        'split': data.source.split,
        'step': int(task.state.step),
        'seed': data.seed,
        'input': data.description,
    }
    stem = f'{name}_{task.method}'
    write_json(out.file(f'{stem}.json'), content)
    columns = [known_pixels(data.inputs), *restored.values(), data.real]
    rows = np.stack([column[:_GRID_ROWS] for column in columns], axis=1)
    picture = images.grid(rows.reshape(-1, *rows.shape[2:]), columns=len(columns))
    return TaskResult(images.write_png(out.file(f'{stem}.png'), picture), _format(table))


class MetricTable(NamedTuple):
    """Metrics of several restoration methods.

    Attributes:
        table: Metric values by method and metric name.
        protocol: Settings that the values depend on.
    """

    table: dict[str, dict[str, float]]
    protocol: dict[str, Any]


def _frechet_evaluator(task: RestorationTask, data: EvaluationImages) -> Evaluator | None:
    """Return an evaluator of the Fréchet distance, or None if it is not among the metrics.

    It is created before the images are restored, so that invalid settings are reported first.
    """
    if 'frechet_distance' not in task.config.evaluation.metrics:
        return None
    evaluation = task.config.evaluation.copy_and_resolve_references()
    with evaluation.unlocked():
        evaluation.metrics = ('frechet_distance',)
    evaluator = Evaluator(evaluation, data.source)
    evaluator.check(len(data.real))
    return evaluator


def compute_metrics(
    task: RestorationTask,
    data: EvaluationImages,
    restored: dict[str, np.ndarray],
    evaluator: Evaluator | None,
) -> MetricTable:
    """Compute PSNR, SSIM and, if an evaluator is given, the Fréchet distance.

    PSNR and SSIM of inpainted images are computed over masked pixels only.

    Args:
        task: The task, see `image_to_image.open_task`.
        data: The original images, and the inputs, whose masks are used for inpainted images.
        restored: Restored images, uint8 `[N, H, W, C]`, by method.
        evaluator: Evaluator of the Fréchet distance, or None.
    """
    mask = data.inputs[..., -1:] if task.config.input.kind == 'masked' else None
    protocol = {'psnr_and_ssim_region': 'image' if mask is None else 'masked pixels'}
    table = {}
    for method, pixels in restored.items():
        row = {}
        for name, metric in (('psnr', psnr), ('ssim', ssim)):
            values = metric(pixels, data.real, mask)
            if np.isfinite(values).any():  # NaN for images in which no pixel or window is compared.
                row[name] = float(np.nanmean(values))
        if evaluator is not None:
            result = evaluator([pixels], len(pixels), {})
            row[result.labels['frechet_distance']] = result.values['frechet_distance']
            protocol |= result.protocol
        table[method] = row
    return MetricTable(table, protocol)


def _format(table: dict[str, dict[str, float]]) -> str:
    return ' | '.join(
        f'{method}: ' + ', '.join(f'{name} {value:.4g}' for name, value in row.items())
        for method, row in table.items()
    )

"""`--mode=detect_anomalies`: anomaly scores of images, relative to the training images."""

import csv
import io
from typing import NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dcgan_jax.data import images, sources
from dcgan_jax.data.input_pipeline import load_split
from dcgan_jax.metrics.roc import auroc
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic, write_json
from dcgan_jax.tasks import anomaly_scores, image_to_image
from dcgan_jax.tasks.anomaly_scores import AnomalyScores
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import OutputFolder, output_folder
from dcgan_jax.tasks.trained_run import merge_config, open_split, restore

_NUM_TEST = 2_000  # Default number of test images.
_NUM_NORMAL = 5_000  # Largest number of training images used as normal images.
_GRID_IMAGES = 16  # Number of images with the largest, and with the smallest, scores in a grid.


class ScoredImages(NamedTuple):
    """Images to be scored.

    Attributes:
        names: File names of user-supplied images, or indices in the test split.
        pixels: Images, uint8 `[N, H, W, C]`.
        is_anomaly: Whether each image is an anomaly, bool `[N]`; None for user-supplied images.
    """

    names: list[str]
    pixels: np.ndarray
    is_anomaly: np.ndarray | None


def run(options: TaskOptions) -> TaskResult:
    """Compute anomaly scores of user-supplied images or of the data set's test split.

    The run is typically trained on some of the classes (`config.data.classes`); test images of the
    other classes are anomalies. Files: `scores.csv` (one row per image), a grid for each score,
    and, for the test split, `metrics.json` with the AUROC of each score.

    Args:
        options: Uses `workdir`, `config`, `out` (defaults to `workdir/anomalies`, or with `images`
            to `workdir/anomalies_in_images`), `images` (of the run's size; None means the test
            split), `num` (number of test images; defaults to 2,000, or to all of them if there are
            fewer), `seed` (of the choice of test images, of the encoder and of the latents) and
            `checkpoint`.

    Returns:
        The folder and, without `images`, the AUROC of each score.

    Raises:
        UserError: If the run, the images or the config are not suitable.
    """
    trained = restore(options.workdir, options.checkpoint, require_latents=True)
    config = merge_config(trained.run.config, options.config)
    if 'rotation' in config.anomaly.scores and not trained.run.config.loss.rotation_weight:
        raise UserError(
            "config.anomaly.scores has 'rotation', but the run's discriminator was not trained to "
            'predict rotations: remove it, or train with --config.loss.rotation_weight=1.0'
        )
    names = [name for name in config.anomaly.scores if name in anomaly_scores.CONDITIONAL_SCORES]
    classes = trained.networks.conditioner.classes
    if names and len(classes) > 1:
        logging.warning(
            'the run is conditional: the scores %s treat all images as images of the class %s',
            *(', '.join(names), trained.run.class_names[classes[0]]),
        )
    default = 'anomalies' if options.images is None else 'anomalies_in_images'
    out = output_folder(options, default, config, trained.check_workdir)
    if options.images is None:
        scored = _test_split(config, options.num or _NUM_TEST, options.seed)
    else:
        user_images = image_to_image.read_images_of_shape(
            options.images, config.data, trained.run.image_shape
        )
        scored = ScoredImages(*user_images, is_anomaly=None)
    source = open_split(trained.run, config, config.data.split)
    normal = load_split(source, num=_NUM_NORMAL).images
    anomaly_scores.check_num_images(config, len(normal))
    scoring_run = anomaly_scores.ScoringRun(
        config, trained.networks, trained.state, normal, options.seed
    )
    result = anomaly_scores.score(scoring_run, scored.pixels)
    _write_csv(out, scored, result)
    for name, scores in result.scores.items():
        _write_grid(out, name, scored.pixels, result.reconstructions.get(name), scores)
    if scored.is_anomaly is None:
        return TaskResult(out.path)
    aurocs = {name: auroc(scores, scored.is_anomaly) for name, scores in result.scores.items()}
    content = {
        'auroc': aurocs,
        'num': len(scored.pixels),
        'fraction_of_anomalies': float(np.mean(scored.is_anomaly)),
        'normal_split': f'{source.name} {source.split}',
        'step': int(trained.state.step),
        'seed': options.seed,
    }
    write_json(out.file('metrics.json'), content)
    summary = ', '.join(f'{name} {value:.4f}' for name, value in aurocs.items())
    return TaskResult(out.path, f'AUROC of {len(scored.pixels):,} test images: {summary}')


def _test_split(config: ConfigDict, num: int, seed: int) -> ScoredImages:
    """Return test images; those of classes that the run was not trained on are anomalies."""
    if not config.data.classes:
        raise UserError(
            'the run was trained on all classes of its data set: train one with '
            '--config.data.classes=(0,) or another subset, or use --images=FOLDER'
        )
    if sources.open_test_split(config) is None:
        raise UserError(
            'the data set has no test split, or the run was trained on it: use --images=FOLDER'
        )
    source = sources.open_all_classes(config, 'test')
    indices = np.sort(np.random.default_rng(seed).permutation(len(source))[:num])
    examples = source.read(indices, labels=True)
    is_anomaly = ~np.isin(examples.labels, config.data.classes)
    if is_anomaly.all() or not is_anomaly.any():
        raise UserError(
            f'the selected images of {source.name} test are all normal or all anomalous: '
            'increase --num'
        )
    return ScoredImages([str(index) for index in indices], examples.images, is_anomaly)


def _write_csv(out: OutputFolder, scored: ScoredImages, result: AnomalyScores) -> None:
    """Write `scores.csv`, with one row per image and one column per score."""
    text = io.StringIO()
    writer = csv.writer(text)
    known = [] if scored.is_anomaly is None else ['anomaly']
    writer.writerow(['image', *known, *result.scores])
    for index, name in enumerate(scored.names):
        label = [] if scored.is_anomaly is None else [int(scored.is_anomaly[index])]
        values = (f'{scores[index]:.6g}' for scores in result.scores.values())
        writer.writerow([name, *label, *values])
    write_atomic(out.file('scores.csv'), text.getvalue().encode())


def _write_grid(
    out: OutputFolder,
    name: str,
    pixels: np.ndarray,
    reconstructions: np.ndarray | None,
    scores: np.ndarray,
) -> None:
    """Write `NAME.png`, a grid of the most and the least anomalous images.

    If the score is based on reconstructions, each image is followed by its reconstruction and a
    heat map of their difference.
    """
    order = np.argsort(-scores)
    chosen = np.concatenate([order[:_GRID_IMAGES], order[-_GRID_IMAGES:]])
    if reconstructions is None:
        picture = images.grid(pixels[chosen], columns=_GRID_IMAGES // 2)
        images.write_png(out.file(f'{name}.png'), picture)
        return
    columns = [pixels[chosen], reconstructions[chosen]]
    columns.append(difference_map(*columns))
    rows = np.stack(columns, axis=1)
    picture = images.grid(rows.reshape(-1, *rows.shape[2:]), columns=6)
    images.write_png(out.file(f'{name}.png'), picture)


def difference_map(pixels: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Return heat maps of absolute differences of images; all are uint8 `[N, H, W, C]`."""
    difference = np.abs(pixels.astype(np.float32) - reconstructions).mean(axis=3) / 255.0
    return heat_map(difference, pixels.shape[3])


def heat_map(values: np.ndarray, channels: int) -> np.ndarray:
    """Map values to colors from black through red and yellow to white, or to gray levels.

    Args:
        values: Values in [0, 1], `[N, H, W]`.
        channels: 3 for colors or 1 for gray levels.

    Returns:
        Images, uint8 `[N, H, W, channels]`.
    """
    if channels == 1:
        return np.round(values[..., None] * 255).astype(np.uint8)
    parts = [np.clip(3.0 * values - offset, 0.0, 1.0) for offset in range(3)]
    return np.round(np.stack(parts, axis=-1) * 255).astype(np.uint8)

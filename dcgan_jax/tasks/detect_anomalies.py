"""`--mode=detect_anomalies`: score images by their dissimilarity to the training images."""

import csv
import io
import json

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax.data import images, sources
from dcgan_jax.data.input_pipeline import load_split
from dcgan_jax.metrics.roc import auroc
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.tasks import anomaly_scores, image_to_image
from dcgan_jax.tasks.anomaly_scores import AnomalyScores
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, open_split, output_folder, restore

_NUM_NORMAL = 5_000  # Largest number of training images that define normality.
_GRID_IMAGES = 16  # Images with the largest and with the smallest scores in a grid.


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
    path, summary = detect_anomalies(
        options.workdir, options.config, options.out, options.images, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [summary, f'pictures: {path}']))


def detect_anomalies(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    image_folder: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Compute anomaly scores of a folder of images or of the data set's test split.

    Args:
        workdir: Folder of a training run, typically on some of the classes (`config.data.classes`).
        overrides: See `merge_config`.
        out: Folder for `scores.csv` (one row per image), `metrics.json` (AUROC) and a grid for each
            score; defaults to `workdir/anomalies`, or to `workdir/anomalies_in_images` with
            `image_folder`.
        image_folder: Folder of images of the run's size; None means the test split, where classes
            that the run was not trained on are the anomalies.
        num: Number of test images; defaults to all.
        seed: Seed of the choice of test images, of the encoder and of the latents.
        which: Checkpoint, 'latest' or 'best'.

    Returns:
        The folder and a one-line summary with the AUROC of each score (empty with
        `image_folder`).

    Raises:
        UserError: If the run, the images or the config are not suitable.
    """
    trained = restore(workdir, which, require_latents=True)
    run, networks, state = trained.run, trained.networks, trained.state
    config = merge_config(run.config, overrides)
    if 'rotation' in config.anomaly.scores and not run.config.loss.rotation_weight:
        raise UserError(
            "config.anomaly.scores has 'rotation', but the run's discriminator was not trained to "
            'predict rotations: remove it, or train with --config.loss.rotation_weight=1.0'
        )
    default = 'anomalies' if image_folder is None else 'anomalies_in_images'
    out = output_folder(out, workdir, default, config, image_folder)
    is_anomaly = None
    if image_folder is not None:
        user_images = image_to_image.read_user_images(
            image_folder, run.image_shape[-1], config.data, run.image_shape[0]
        )
        image_to_image.check_size(image_folder, user_images, run.image_shape[:2])
        names, pixels = user_images
    else:
        names, pixels, is_anomaly = _test_split(config, num, seed)
    source = open_split(run, config, config.data.split)
    normal = load_split(source, num=_NUM_NORMAL).images
    anomaly_scores.check_num_images(config, len(normal))
    result = anomaly_scores.score(
        anomaly_scores.ScoringRun(config, networks, state, normal, seed), pixels
    )
    _write_csv(out, names, is_anomaly, result)
    for name, scores in result.scores.items():
        _write_grid(out, name, pixels, result.reconstructions.get(name), scores)
    if is_anomaly is None:
        return out, ''
    aurocs = {name: auroc(scores, is_anomaly) for name, scores in result.scores.items()}
    content = {
        'auroc': aurocs,
        'num': len(pixels),
        'fraction_of_anomalies': float(np.mean(is_anomaly)),
        'normal': f'{source.name} {source.split}',
        'step': int(state.step),
        'seed': seed,
    }
    write_atomic(out / 'metrics.json', f'{json.dumps(content, indent=2)}\n'.encode())
    return out, 'AUROC ' + ', '.join(f'{name} {value:.4f}' for name, value in aurocs.items())


def _test_split(
    config: ConfigDict, num: int | None, seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return (names, images, whether each image is of a class not trained on)."""
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
    indices = np.arange(len(source))
    if num is not None:
        indices = np.sort(np.random.default_rng(seed).permutation(len(source))[:num])
    examples = source.read(indices, labels=True)
    is_anomaly = ~np.isin(examples.labels, config.data.classes)
    if is_anomaly.all() or not is_anomaly.any():
        raise UserError(
            f'the selected images of {source.name} test are all normal or all anomalous: '
            'increase --num'
        )
    return [str(index) for index in indices], examples.images, is_anomaly


def _write_csv(
    out: epath.Path, names: list[str], is_anomaly: np.ndarray | None, result: AnomalyScores
) -> None:
    """Write `scores.csv`, with one row per image and one column per score."""
    text = io.StringIO()
    writer = csv.writer(text)
    known = [] if is_anomaly is None else ['anomaly']
    writer.writerow(['image', *known, *result.scores])
    for index, name in enumerate(names):
        label = [] if is_anomaly is None else [int(is_anomaly[index])]
        values = (f'{scores[index]:.6g}' for scores in result.scores.values())
        writer.writerow([name, *label, *values])
    write_atomic(out / 'scores.csv', text.getvalue().encode())


def _write_grid(
    out: epath.Path,
    name: str,
    pixels: np.ndarray,
    reconstructions: np.ndarray | None,
    scores: np.ndarray,
) -> None:
    """Write `NAME.png`: the most and the least anomalous images.

    For scores based on reconstructions, each image is followed by its reconstruction and a heat map
    of their difference.
    """
    order = np.argsort(-scores)
    chosen = np.concatenate([order[:_GRID_IMAGES], order[-_GRID_IMAGES:]])
    if reconstructions is None:
        picture = images.grid(pixels[chosen], columns=_GRID_IMAGES // 2)
        images.write_png(out / f'{name}.png', picture)
        return
    difference = np.abs(pixels[chosen].astype(np.float32) - reconstructions[chosen])
    difference = difference.mean(axis=3) / 255.0
    columns = [pixels[chosen], reconstructions[chosen], heat_map(difference, pixels.shape[3])]
    rows = np.stack(columns, axis=1)
    picture = images.grid(rows.reshape(-1, *rows.shape[2:]), columns=6)
    images.write_png(out / f'{name}.png', picture)


def heat_map(values: np.ndarray, channels: int) -> np.ndarray:
    """Map values to colors from black over red and yellow to white, or to gray levels.

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

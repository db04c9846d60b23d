"""`--mode=detect_anomalies`: which images are unlike those that a run learnt."""

import csv
import io
import json

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import run_dir
from dcgan_jax.data import images, sources
from dcgan_jax.data.input_pipeline import load_split
from dcgan_jax.metrics.roc import auroc
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.tasks import anomaly_scores, image_to_image
from dcgan_jax.tasks.anomaly_scores import AnomalyScores
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, restore

_NORMAL = 5_000  # training images that features are compared with
_SHOWN = 16  # the strangest images


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path, figures = detect_anomalies(
        options.workdir, options.config, options.out, options.images, options.num, options.seed,
        options.checkpoint,
    )  # fmt: skip
    return '\n'.join(filter(None, [figures, f'pictures: {path}']))


def detect_anomalies(
    workdir: epath.PathLike,
    overrides: ConfigDict | None,
    out: epath.PathLike | None,
    pictures: str | None,
    num: int | None,
    seed: int,
    which: str = 'latest',
) -> tuple[epath.Path, str]:
    """Scores a folder of pictures, or the test split of the run's data set.

    Args:
        workdir: of a training run of latents, on `config.data.classes` say.
        overrides: see `trained_run.merge_config`; `anomaly` counts too.
        out: folder for `scores.csv`, a line for each image, `figures.json` and a picture of each
            score, with heat maps where G makes the images again; `workdir/anomalies` when None
            (`workdir/anomalies_in_pictures` of a user's).
        pictures: folder of pictures of the run's size; None: the test split, where images of other
            classes than the run's are the anomalies to be found.
        num: images of the test split; all when None.
        seed: of their choice, of the encoder and of latents.
        which: checkpoint, see `restore`.

    Returns:
        The folder, and the AUROC of each score in a line (empty for a user's pictures).

    Raises:
        UserError: run, pictures or config don't allow it.
    """
    run, networks, state = restore(workdir, which, require_latents=True)
    config = merge_config(run.config, overrides)
    if 'rotation' in config.anomaly.scores and not run.config.loss.rotation:
        raise UserError(
            "config.anomaly.scores has 'rotation', and the run's D was not trained to predict "
            'rotations: leave it out, or train with --config.loss.rotation=1.0'
        )
    strange = None
    if pictures is not None:
        read = image_to_image.read_user_images(pictures, run.image_shape[-1], out)
        image_to_image.check_size(pictures, read, run.image_shape[:2])
        names, pixels = read.names, read.pixels
    else:
        names, pixels, strange = _test_split(config, num, seed)
    source = sources.open_split(config, config.data.split)
    normal = load_split(source).images[:_NORMAL]
    default = 'anomalies' if pictures is None else 'anomalies_in_pictures'
    out = run_dir.check_writable(out or epath.Path(workdir).expanduser() / default, '--out')
    scored = anomaly_scores.score(
        anomaly_scores.ScoringRun(config, networks, state, normal, seed), pixels
    )
    _write_csv(out, names, strange, scored)
    for name, values in scored.scores.items():
        _write_picture(out, name, pixels, scored.made.get(name), values)
    if strange is None:
        return out, ''
    figures = {name: auroc(values, strange) for name, values in scored.scores.items()}
    content = {
        'auroc': figures,
        'num': len(pixels),
        'share_of_anomalies': float(np.mean(strange)),
        'normal': f'{source.name} {source.split}',
        'step': int(state.step),
        'seed': seed,
    }
    write_atomic(out / 'figures.json', f'{json.dumps(content, indent=2)}\n'.encode())
    return out, 'AUROC ' + ', '.join(f'{name} {value:.4f}' for name, value in figures.items())


def _test_split(
    config: ConfigDict, num: int | None, seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names, images, whether each is of a class that the run didn't learn)."""
    if not config.data.classes:
        raise UserError(
            'the run learnt all classes of its data set, so none is strange: train one with '
            '--config.data.classes=(0,), say, or give --images=FOLDER'
        )
    if sources.open_test_split(config) is None:
        raise UserError(
            'the data set has no test split, or the run learnt it: give --images=FOLDER'
        )
    fields = config.data
    source = sources.open_source(
        config.dataset, 'test', config.data_dir, fields.image_size, fields.on_corrupt
    )
    chosen = np.arange(len(source))
    if num is not None:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(source))[:num])
    found = source.read(chosen, labels=True)
    strange = ~np.isin(found.labels, fields.classes)
    if strange.all() or not strange.any():
        raise UserError(f'{source.name} test: normal and other classes are needed, take more --num')
    return [str(index) for index in chosen], found.images, strange


def _write_csv(
    out: epath.Path, names: list[str], strange: np.ndarray | None, scored: AnomalyScores
) -> None:
    """A line for each image, its scores in columns."""
    text = io.StringIO()
    writer = csv.writer(text)
    known = [] if strange is None else ['anomaly']
    writer.writerow(['image', *known, *scored.scores])
    for index, name in enumerate(names):
        label = [] if strange is None else [int(strange[index])]
        values = (f'{values[index]:.6g}' for values in scored.scores.values())
        writer.writerow([name, *label, *values])
    write_atomic(out / 'scores.csv', text.getvalue().encode())


def _write_picture(
    out: epath.Path, name: str, pixels: np.ndarray, made: np.ndarray | None, scores: np.ndarray
) -> None:
    """`NAME.png`: the strangest images and the least strange, G's of them, and the difference.

    Scores that ask no G have but the images.
    """
    order = np.argsort(-scores)
    shown = np.concatenate([order[:_SHOWN], order[-_SHOWN:]])
    if made is None:
        images.write_png(out / f'{name}.png', images.grid(pixels[shown], columns=_SHOWN // 2))
        return
    apart = np.abs(pixels[shown].astype(np.float32) - made[shown]).mean(axis=3) / 255.0
    columns = [pixels[shown], made[shown], heat(apart, pixels.shape[3])]
    rows = np.stack(columns, axis=1)
    picture = images.grid(rows.reshape(-1, *rows.shape[2:]), columns=6)
    images.write_png(out / f'{name}.png', picture)


def heat(values: np.ndarray, channels: int) -> np.ndarray:
    """Values in [0, 1] as colours from black over red and yellow to white, or as greys.

    Args:
        values: `[N, H, W]`.
        channels: 3 or 1.

    Returns:
        uint8 `[N, H, W, channels]`.
    """
    if channels == 1:
        return np.round(values[..., None] * 255).astype(np.uint8)
    parts = [np.clip(3.0 * values - offset, 0.0, 1.0) for offset in range(3)]
    return np.round(np.stack(parts, axis=-1) * 255).astype(np.uint8)

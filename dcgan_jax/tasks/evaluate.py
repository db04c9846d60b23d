"""`--mode=evaluate`: metrics of a trained generator or of user-supplied images."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax import run_dir
from dcgan_jax.data import sources, user_images
from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.evaluation import SampleScorer
from dcgan_jax.metrics import evaluator as evaluator_lib
from dcgan_jax.metrics.evaluator import Evaluation, Evaluator
from dcgan_jax.runtime import workdir_guard
from dcgan_jax.runtime.files import escape
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder
from dcgan_jax.tasks.trained_run import merge_config, open_split, restore


def run(options: TaskOptions) -> TaskResult:
    """Evaluate samples of a run, or user-supplied images, and write a JSON file.

    The name and the content of the file are described in `evaluator_lib.write`.

    Args:
        options: See `evaluate_run`, or, if `images` is set, `evaluate_images`.

    Returns:
        Path of the file (see `evaluate_images`) and the metrics.

    Raises:
        UserError: If the run, the images, the config or the data set are not suitable.
    """
    evaluate = evaluate_run if options.images is None else evaluate_images
    evaluation, path = evaluate(options)
    return TaskResult(path, evaluator_lib.summary(evaluation))


def evaluate_run(options: TaskOptions) -> tuple[Evaluation, epath.Path]:
    """Evaluate samples of a run; return the evaluation and the path of its file.

    Args:
        options: Uses `workdir`, `config`, `out` (defaults to `workdir/evaluation`), `num` (number
            of samples; defaults to `config.evaluation.num_samples`), `seed` (of the latents) and
            `checkpoint`.

    Raises:
        UserError: See `run`.
    """
    trained = restore(options.workdir, options.checkpoint)
    config = merge_config(trained.run.config, options.config)
    source = open_split(trained.run, config, config.evaluation.split)
    scorer = SampleScorer(config, trained.sampler, source)
    out = output_folder(options, run_dir.EVALUATIONS_FOLDER, config, trained.check_workdir)
    num = options.num or config.evaluation.num_samples
    evaluation = scorer(trained.state, num, options.seed)
    name = f'{int(trained.state.step):08d}_seed{options.seed}'
    out.check()
    return evaluation, evaluator_lib.write(out.path, name, evaluation)


def evaluate_images(options: TaskOptions) -> tuple[Evaluation, epath.Path | None]:
    """Evaluate images of a folder or npz file; return the evaluation and the path of its file.

    Args:
        options: Uses `images` (see `user_images.open_images`; `config.data.image_size` applies),
            `workdir` (its data set and `config.evaluation` are used; None means those of `config`),
            `config` (required without `workdir`) and `out` (defaults to `workdir/evaluation`;
            without either, no file is written and the path is None).

    Raises:
        UserError: See `run`.
    """
    config, source, check_workdir = _open_data_set(options)
    out = None
    if options.out is not None or options.workdir is not None:
        out = output_folder(options, run_dir.EVALUATIONS_FOLDER, config, check_workdir)
    batches, count = user_images.open_images(options.images, config.data)
    evaluator = Evaluator(config.evaluation, source)
    digest = hashlib.sha256()
    evaluation = evaluator(_hashed(batches, digest), count, {'images': escape(str(options.images))})
    evaluation.protocol['images_sha256'] = digest.hexdigest()  # Hash of all pixels in order.
    if out is None:
        return evaluation, None
    name = escape(f'images_{epath.Path(options.images).stem}')
    out.check()
    return evaluation, evaluator_lib.write(out.path, name, evaluation)


def _open_data_set(options: TaskOptions) -> tuple[ConfigDict, ImageSource, Callable[[], None]]:
    """Return the config and the split `config.evaluation.split` of the run or of the config.

    Returns:
        The config, the split, and the function of `workdir_guard.presence_check`.
    """
    if options.workdir is None:
        config_lib.validate(options.config)
        source = sources.open_split(options.config, options.config.evaluation.split)
        return options.config, source, lambda: None
    workdir = run_dir.folder(options.workdir)
    check_workdir = workdir_guard.presence_check(workdir)
    described = run_dir.read(workdir)
    config = merge_config(described.config, options.config)
    return config, open_split(described, config, config.evaluation.split), check_workdir


def _hashed(batches: Iterable[np.ndarray], digest: Any) -> Iterator[np.ndarray]:
    """Yield the batches and update a hash with their bytes."""
    for batch in batches:
        digest.update(batch.tobytes())
        yield batch

"""`--mode=evaluate`: metrics of a trained generator or of user-supplied images."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import config as config_lib
from dcgan_jax import run_dir
from dcgan_jax.data import sources, user_images
from dcgan_jax.evaluation import SampleScorer
from dcgan_jax.metrics import evaluator as evaluator_lib
from dcgan_jax.metrics.evaluator import Evaluation, Evaluator
from dcgan_jax.runtime.files import escape
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, open_split, output_folder, restore


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
    if options.images is None:
        result = evaluate_run(
            options.workdir, options.config, options.out, options.num, options.seed,
            options.checkpoint,
        )  # fmt: skip
    else:
        result = evaluate_images(options.images, options.workdir, options.config, options.out)
    return evaluator_lib.summary(result)


def evaluate_run(
    workdir: epath.PathLike,
    overrides: ConfigDict | None = None,
    out: epath.PathLike | None = None,
    num: int | None = None,
    seed: int = 0,
    which: str = 'latest',
) -> Evaluation:
    """Evaluate samples of a run and write the result to a file, see `evaluator_lib.write`.

    Args:
        workdir: Folder of a training run.
        overrides: See `merge_config`.
        out: Folder for the result; defaults to `workdir/evaluation`.
        num: Number of samples; defaults to `config.evaluation.num_samples`.
        seed: Seed of the latents.
        which: Checkpoint, 'latest' or 'best'.

    Raises:
        UserError: If the run, the config or the data set is not suitable.
    """
    trained = restore(workdir, which)
    run, networks, state = trained.run, trained.networks, trained.state
    config = merge_config(run.config, overrides)
    source = open_split(run, config, config.evaluation.split)
    scorer = SampleScorer(config, Sampler(networks.generator, config), source)
    out = output_folder(out, workdir, run_dir.EVALUATIONS_FOLDER, config)
    result = scorer(state, num or config.evaluation.num_samples, seed)
    evaluator_lib.write(out, f'{int(state.step):08d}_seed{seed}', result)
    return result


def evaluate_images(
    images: epath.PathLike,
    workdir: epath.PathLike | None = None,
    overrides: ConfigDict | None = None,
    out: epath.PathLike | None = None,
) -> Evaluation:
    """Evaluate images of a folder or npz file and write the result to a file.

    Args:
        images: See `user_images.open_images`; `config.data.image_size` applies.
        workdir: Folder of a run, whose data set and `config.evaluation` are used; None means to use
            those of `overrides`.
        overrides: See `merge_config`; required without `workdir`.
        out: Folder for the result; defaults to `workdir/evaluation`. Without either, no file is
            written.

    Raises:
        UserError: If the images, the config or the data set are not suitable.
    """
    if workdir is None:
        config_lib.validate(overrides)
        config = overrides
        source = sources.open_split(config, config.evaluation.split)
    else:
        run = run_dir.read(run_dir.folder(workdir))
        config = merge_config(run.config, overrides)
        source = open_split(run, config, config.evaluation.split)
    if out is not None or workdir is not None:
        out = output_folder(out, workdir or '', run_dir.EVALUATIONS_FOLDER, config, images)
    batches, count = user_images.open_images(images, config.data)
    evaluator = Evaluator(config.evaluation, source)
    digest = hashlib.sha256()
    result = evaluator(_hashed(batches, digest), count, {'images': escape(str(images))})
    result.protocol['images_sha256'] = digest.hexdigest()  # Of the pixels in order.
    if out is not None:
        evaluator_lib.write(out, escape(f'images_{epath.Path(images).stem}'), result)
    return result


def _hashed(batches: Iterable[np.ndarray], digest: Any) -> Iterator[np.ndarray]:
    """Yield the batches and update a hash with their bytes."""
    for batch in batches:
        digest.update(batch.tobytes())
        yield batch

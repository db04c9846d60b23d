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
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, restore


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
    source = sources.open_split(config, config.evaluation.split)
    scorer = SampleScorer(config, Sampler(networks.generator, config), source)
    out = run_dir.check_writable(out or epath.Path(workdir) / run_dir.EVALUATIONS_FOLDER, '--out')
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
        images: See `user_images.open_images`.
        workdir: Folder of a run, for its data set and `config.evaluation`; None means those of
            `overrides`.
        overrides: See `merge_config`; required without `workdir`.
        out: Folder for the result; defaults to `workdir/evaluation`. Without either, no file is
            written.

    Raises:
        UserError: If the images, the config or the data set are not suitable.
    """
    if workdir is None:
        config_lib.validate(overrides)
        config = overrides
    else:
        config = merge_config(run_dir.read(run_dir.folder(workdir)).config, overrides)
        out = out or epath.Path(workdir) / run_dir.EVALUATIONS_FOLDER
    batches, count = user_images.open_images(images)
    evaluator = Evaluator(config.evaluation, sources.open_split(config, config.evaluation.split))
    if out is not None:
        out = run_dir.check_writable(out, '--out')
    digest = hashlib.sha256()
    result = evaluator(_hashed(batches, digest), count, {'images': str(images)})
    result.protocol['images_sha256'] = digest.hexdigest()  # Of the pixels in order.
    if out is not None:
        evaluator_lib.write(out, f'images_{epath.Path(images).stem}', result)
    return result


def _hashed(batches: Iterable[np.ndarray], digest: Any) -> Iterator[np.ndarray]:
    """Yield the batches and update a hash with their bytes."""
    for batch in batches:
        digest.update(batch.tobytes())
        yield batch

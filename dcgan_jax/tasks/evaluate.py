"""`--mode=evaluate`: figures for a trained generator, or for anybody's images."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

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
    """Returns what the command line prints, see `TaskOptions`."""
    if options.images is None:
        result = evaluate_run(
            options.workdir, options.config, options.out, options.num, options.seed,
            options.checkpoint,
        )  # fmt: skip
    else:
        result = evaluate_images(options.images, options.workdir, options.config, options.out)
    return evaluator_lib.line(result)


def evaluate_run(
    workdir: epath.PathLike,
    overrides: ConfigDict | None = None,
    out: epath.PathLike | None = None,
    num: int | None = None,
    seed: int = 0,
    which: str = 'latest',
) -> Evaluation:
    """Scores samples of the run in `workdir` and writes a file, see `evaluator_lib.write`.

    Args:
        workdir: of a training run.
        overrides: a config whose `evaluation` (and `data_dir`, if set) replace the run's.
        out: folder for the result; `workdir/evaluation` when None.
        num: samples; `config.evaluation.num_samples` when None.
        seed: of the latents.
        which: checkpoint, see `restore`.

    Raises:
        UserError: run, config or data set don't allow it.
    """
    run, networks, state = restore(workdir, which)
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
    """Scores images of a folder or npz file and writes a file, see `evaluator_lib.write`.

    Args:
        images: see `user_images.open_images`.
        workdir: of a run, for its data set and `config.evaluation`; None takes those of `given`.
        overrides: as in `evaluate_run`; needed without `workdir`.
        out: folder for the result; `workdir/evaluation` when None, and no file without both.

    Raises:
        UserError: images, config or data set don't allow it.
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
    content = hashlib.sha256()
    result = evaluator(_seen(batches, content.update), count, {'images': str(images)})
    result.protocol['images_sha256'] = content.hexdigest()  # Of their pixels, in order.
    if out is not None:
        evaluator_lib.write(out, f'images_{epath.Path(images).stem}', result)
    return result


def _seen(batches: Iterable[np.ndarray], see: Callable[[bytes], None]) -> Iterator[np.ndarray]:
    """The same batches, the bytes of each told as it goes by."""
    for batch in batches:
        see(batch.tobytes())
        yield batch

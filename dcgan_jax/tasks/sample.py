"""`--mode=sample`: pictures from a trained generator."""

import io
import math
from collections.abc import Sequence

import numpy as np
from etils import epath

from dcgan_jax import run_dir
from dcgan_jax.data import captions, images
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import is_unicode, write_atomic
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import class_numbers, restore

MAX_GRID_IMAGES = 1024  # A larger picture is hard to open.
_MOST_COLUMNS = 32  # of classes or prompts


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path = sample(
        options.workdir, options.out, options.num or 64, options.seed, options.checkpoint,
        options.classes, options.prompt,
    )  # fmt: skip
    return f'samples: {path}'


def sample(
    workdir: epath.PathLike,
    out: epath.PathLike | None,
    num: int,
    seed: int,
    which: str = 'latest',
    classes: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
) -> epath.Path:
    """Draws `num` images from the run in `workdir`.

    Args:
        workdir: of a training run.
        out: folder for `samples.png` (a grid of the first `MAX_GRID_IMAGES`) and `samples.npz`
            (`images` uint8 [num, H, W, C], `latents` float32 [num, latent_dim], `labels` int32
            [num], zeros without classes, `step`);
            `workdir/samples` when None.
        num: how many, at least 1.
        seed: of the latents.
        which: checkpoint, see `restore`.
        classes: names (or numbers) of those to draw in turn; all when None.
        prompts: sentences to draw in turn instead, by a run with `config.text`; `labels` are their
            numbers then.

    Returns:
        The grid's path.

    Raises:
        UserError: no run or no whole checkpoint in `workdir`, `out` isn't writable, a class is
            unknown, or the run knows no sentences.
    """
    run, networks, state = restore(workdir, which, require_latents=True)
    vectors = _embedded(run, prompts, classes)
    chosen = (
        class_numbers(run, classes) if prompts is None else np.arange(len(prompts), dtype=np.int32)
    )
    out = run_dir.check_writable(out or epath.Path(workdir) / run_dir.SAMPLES_FOLDER, '--out')
    sampler = Sampler(networks.generator, run.config)
    latents = sampler.latents(seed, num)
    labels = np.resize(chosen, num)
    pixels = sampler(state, latents, labels, vectors)

    arrays = io.BytesIO()
    np.savez_compressed(arrays, images=pixels, latents=latents, labels=labels, step=int(state.step))
    write_atomic(out / 'samples.npz', arrays.getvalue())
    shown = pixels[:MAX_GRID_IMAGES]
    return images.write_png(
        out / 'samples.png', images.grid(shown, grid_columns(len(shown), len(chosen)))
    )


def grid_columns(count: int, kinds: int) -> int | None:
    """Of a grid of pictures whose kinds take turns: each column is of one kind, where they fit."""
    if not 1 < kinds <= _MOST_COLUMNS:
        return None
    return kinds * max(1, round(math.sqrt(count) / kinds))


def _embedded(
    run: run_dir.Run, prompts: Sequence[str] | None, classes: Sequence[str] | None
) -> np.ndarray | None:
    """Vectors of prompts; None without any."""
    if prompts is None:
        return None
    if not captions.is_used(run.config):
        raise UserError(
            '--prompt: the run was trained without captions; train one with '
            '--config=configs/text_cifar10.py'
        )
    if classes is not None:
        raise UserError('--prompt and --classes exclude each other: drop one')
    for prompt in prompts:
        if not is_unicode(prompt):
            raise UserError(f'--prompt={prompt!r} is no UTF-8 text: write it otherwise')
    return captions.embed(run.config, prompts)

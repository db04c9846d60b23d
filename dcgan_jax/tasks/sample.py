"""`--mode=sample`: generate images from a trained generator."""

import io
import math
from collections.abc import Sequence

import numpy as np
from etils import epath

from dcgan_jax import run_dir
from dcgan_jax.data import captions, images
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import is_unicode, write_atomic
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import class_labels, output_folder, restore

MAX_GRID_IMAGES = 1024
_MAX_COLUMN_GROUPS = 32  # Most classes or prompts that each get columns of their own.


def run(options: TaskOptions) -> str:
    """Run the task and return the text to print."""
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
    """Generate images and write them as a PNG grid and as an npz file.

    Args:
        workdir: Folder of a training run.
        out: Folder for `samples.png` (a grid of the first `MAX_GRID_IMAGES` images) and
            `samples.npz` (`images`: uint8 `[num, H, W, C]`, `latents`: float32 `[num, latent_dim]`,
            `labels`: int32 `[num]`, `step`); defaults to `workdir/samples`.
        num: Number of images, at least 1.
        seed: Seed of the latents.
        which: Checkpoint, 'latest' or 'best'.
        classes: Names or indices of the classes, used in turn; None means all.
        prompts: Captions, used in turn instead of classes, for a run with `config.text`; `labels`
            are then indices of prompts.

    Returns:
        Path of the grid.

    Raises:
        UserError: If there is no intact checkpoint, `out` is not writable, a class is unknown, or
            prompts are given for a run without text conditioning.
    """
    trained = restore(workdir, which, require_latents=True)
    run, networks, state = trained.run, trained.networks, trained.state
    embeddings = _embed_prompts(run, prompts, classes)
    conditions = (
        class_labels(run, networks.conditioner, classes)
        if prompts is None
        else np.arange(len(prompts), dtype=np.int32)
    )
    out = output_folder(out, workdir, run_dir.SAMPLES_FOLDER, run.config)
    sampler = trained.sampler
    latents = sampler.latents(seed, num)
    labels = np.resize(conditions, num)
    pixels = sampler(state, latents, labels, embeddings)

    arrays = io.BytesIO()
    np.savez_compressed(arrays, images=pixels, latents=latents, labels=labels, step=int(state.step))
    write_atomic(out / 'samples.npz', arrays.getvalue())
    first = pixels[:MAX_GRID_IMAGES]
    columns = grid_columns(len(first), len(conditions))
    return images.write_png(out / 'samples.png', images.grid(first, columns))


def grid_columns(num_images: int, num_conditions: int) -> int | None:
    """Return a number of grid columns such that each column has one class or prompt, if possible.

    Args:
        num_images: Number of images, whose conditions alternate.
        num_conditions: Number of classes or prompts.
    """
    if not 1 < num_conditions <= _MAX_COLUMN_GROUPS:
        return None
    return num_conditions * max(1, round(math.sqrt(num_images) / num_conditions))


def _embed_prompts(
    run: run_dir.Run, prompts: Sequence[str] | None, classes: Sequence[str] | None
) -> np.ndarray | None:
    """Return the embeddings of the prompts, float32 `[num_prompts, D]`, or None."""
    if prompts is None:
        return None
    if not captions.is_used(run.config):
        raise UserError(
            '--prompt: the run was trained without captions; train one with '
            '--config=configs/text_cifar10.py'
        )
    if classes is not None:
        raise UserError('--prompt and --classes are mutually exclusive: remove one of them')
    for prompt in prompts:
        if not is_unicode(prompt):
            raise UserError(f'--prompt={prompt!r} is not valid UTF-8')
    return captions.embed(run.config, prompts)

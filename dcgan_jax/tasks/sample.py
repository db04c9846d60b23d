"""`--mode=sample`: generate images from a trained generator."""

import io
import math

import numpy as np

from dcgan_jax import run_dir
from dcgan_jax.data import captions, images
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import is_unicode, write_atomic
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import output_folder
from dcgan_jax.tasks.trained_run import class_labels, restore

MAX_GRID_IMAGES = 1024
_MAX_COLUMN_GROUPS = 32  # Largest number of classes or prompts with separate columns.


def run(options: TaskOptions) -> TaskResult:
    """Generate images and write them as a PNG grid and as an npz file.

    Files: `samples.png`, a grid of the first `MAX_GRID_IMAGES` images, and `samples.npz` with the
    arrays `images` (uint8 `[num, H, W, C]`), `latents` (float32 `[num, latent_dim]`), `labels`
    (int32 `[num]`; indices of prompts, if there are any) and `step`.

    Args:
        options: Uses `workdir`, `out` (defaults to `workdir/samples`), `num` (64), `seed` (of the
            latents), `checkpoint`, and either `classes` (defaults to all) or, for a run with
            `config.text`, `prompt`. The samples cycle through the classes or prompts.

    Returns:
        Path of the grid.

    Raises:
        UserError: If there is no intact checkpoint, the folder is not writable, a class is unknown,
            or prompts are given for a run without text conditioning.
    """
    trained = restore(options.workdir, options.checkpoint, require_latents=True)
    embeddings = _embed_prompts(trained.run, options)
    if embeddings is None:
        conditions = class_labels(trained.run, trained.networks.conditioner, options.classes)
    else:
        conditions = np.arange(len(embeddings), dtype=np.int32)
    out = output_folder(options, run_dir.SAMPLES_FOLDER, trained.run.config, trained.check_workdir)
    num = options.num or 64
    latents, labels = trained.sampler.latents(options.seed, num), np.resize(conditions, num)
    pixels = trained.sampler(trained.state, latents, labels, embeddings)

    arrays = io.BytesIO()
    step = int(trained.state.step)
    np.savez_compressed(arrays, images=pixels, latents=latents, labels=labels, step=step)
    write_atomic(out.file('samples.npz'), arrays.getvalue())
    first = pixels[:MAX_GRID_IMAGES]
    grid = images.grid(first, grid_columns(len(first), len(conditions)))
    return TaskResult(images.write_png(out.file('samples.png'), grid))


def grid_columns(num_images: int, num_conditions: int) -> int | None:
    """Return a number of grid columns such that each column has one class or prompt, if possible.

    Args:
        num_images: Number of images, which cycle through the classes or prompts.
        num_conditions: Number of classes or prompts.
    """
    if not 1 < num_conditions <= _MAX_COLUMN_GROUPS:
        return None
    return num_conditions * max(1, round(math.sqrt(num_images) / num_conditions))


def _embed_prompts(run: run_dir.Run, options: TaskOptions) -> np.ndarray | None:
    """Return the embeddings of the prompts, float32 `[num_prompts, D]`, or None."""
    prompts = options.prompt
    if prompts is None:
        return None
    if not captions.is_used(run.config):
        raise UserError(
            '--prompt: the run was trained without captions; train one with '
            '--config=configs/text_cifar10.py'
        )
    if options.classes is not None:
        raise UserError('--prompt and --classes are mutually exclusive: remove one of them')
    for prompt in prompts:
        if not prompt.strip():
            raise UserError('--prompt is empty: pass a caption, e.g. --prompt="a photo of a cat"')
        if not is_unicode(prompt):
            raise UserError(f'--prompt={prompt!r} is not valid UTF-8')
    return captions.embed(run.config, prompts)

"""`--mode=sample`: pictures from a trained generator."""

import difflib
import io
import math
from collections.abc import Sequence

import numpy as np
from etils import epath

from dcgan_jax import run_dir
from dcgan_jax.data import captions, images
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import is_unicode, write_whole
from dcgan_jax.sampling import Sampler
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import restore

MOST_IN_GRID = 1024  # A larger picture is hard to open.
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
        out: folder for `samples.png` (a grid of the first `MOST_IN_GRID`) and `samples.npz`
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
    run, networks, state = restore(workdir, which, of_latents=True)
    vectors = _embedded(run, prompts, classes)
    chosen = numbers(run, classes) if prompts is None else np.arange(len(prompts), dtype=np.int32)
    out = run_dir.check_writable(out or epath.Path(workdir) / run_dir.SAMPLES_FOLDER, '--out')
    sampler = Sampler(networks.generator, run.config)
    latents = sampler.latents(seed, num)
    labels = np.resize(chosen, num)
    pixels = sampler(state, latents, labels, vectors)

    arrays = io.BytesIO()
    np.savez_compressed(arrays, images=pixels, latents=latents, labels=labels, step=int(state.step))
    write_whole(out / 'samples.npz', arrays.getvalue())
    shown = pixels[:MOST_IN_GRID]
    return images.write_png(
        out / 'samples.png', images.grid(shown, columns(len(shown), len(chosen)))
    )


def columns(count: int, kinds: int) -> int | None:
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


def numbers(run: run_dir.Run, classes: Sequence[str] | None) -> np.ndarray:
    """The labels of classes by name or number, int32; all that the run learnt (or 0) when None.

    Raises:
        UserError: the run knows no classes, or not such a one.
    """
    learnt = captions.classes(run.config, run.num_classes)
    if classes is None:
        return learnt if run.config.conditional else np.zeros(1, np.int32)
    if not run.config.conditional:
        raise UserError(
            '--classes: the run was trained without classes; train one with '
            '--config.conditional=True'
        )
    if not classes:
        raise UserError('--classes is empty: name some, cat,dog say, or leave it out')
    names = list(run.class_names)
    found = []
    for given in classes:
        if given in names:
            found.append(names.index(given))
        elif given.isdecimal() and int(given) < len(names):
            found.append(int(given))
        else:
            close = difflib.get_close_matches(given, names, n=1)
            hint = f'did you mean {close[0]}? ' if close else ''
            raise UserError(f'--classes: {given!r} is unknown. {hint}There are {", ".join(names)}')
        if found[-1] not in learnt:
            raise UserError(
                f'--classes: the run learnt nothing of {given!r} (config.data.classes='
                f'{tuple(run.config.data.classes)}): leave it out'
            )
    return np.asarray(found, np.int32)

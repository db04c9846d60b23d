"""`--mode=explore`: walks through the latents of a trained generator, and what it remembers."""

import itertools
import json
import re
from typing import NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dcgan_jax import run_dir
from dcgan_jax.data import captions, images, sources
from dcgan_jax.data.input_pipeline import load_split
from dcgan_jax.models import Networks
from dcgan_jax.run_dir import Run
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_atomic
from dcgan_jax.sampling import Sampler, read_images
from dcgan_jax.tasks.discriminator_features import DiscriminatorFeatures
from dcgan_jax.tasks.nearest_neighbors import nearest
from dcgan_jax.tasks.options import TaskOptions
from dcgan_jax.tasks.trained_run import merge_config, restore
from dcgan_jax.train_state import GANState

_ROWS = 8  # of pictures: latents, or pairs of them
_WALK = 10  # pictures from one latent to the next; of a GIF four times as many
_MILLISECONDS = 60  # of a picture in a GIF
_TRUNCATIONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
_SHIFTS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # along directions; latents have norms of ten
_DIRECTIONS = 5
_NEIGHBOURS = 5
_SIDE = 2  # of D's pooled maps, for the distance in features


class LatentExplorer(NamedTuple):
    """What all walks share."""

    run: Run
    networks: Networks
    state: GANState
    sampler: Sampler
    seed: int

    def draw(self, latents: np.ndarray) -> np.ndarray:
        """Images uint8 `[N, H, W, C]`, of the first class (or caption) that was learnt."""
        latents = latents.astype(np.float32)
        first = int(
            captions.trained_conditions(self.run.config, self.networks.generator.num_classes)[0]
        )
        table = self.state.generator.captions.get('table')
        if table is None:
            return self.sampler(self.state, latents, np.full(len(latents), first, np.int32))
        only = np.asarray(table[first : first + 1])
        return self.sampler(self.state, latents, np.zeros(len(latents), np.int32), only)


def run(options: TaskOptions) -> str:
    """Returns what the command line prints, see `TaskOptions`."""
    path, distance = explore(
        options.workdir, options.out, options.num, options.seed, options.arithmetic,
        options.checkpoint, options.config,
    )  # fmt: skip
    return f'distance to the nearest training image: {distance}\npictures: {path}'


def explore(
    workdir: epath.PathLike,
    out: epath.PathLike | None,
    num: int | None,
    seed: int,
    arithmetic: str | None = None,
    which: str = 'latest',
    overrides: ConfigDict | None = None,
) -> tuple[epath.Path, str]:
    """Draws interpolations, truncations, directions and neighbours of a run's samples.

    Args:
        workdir: of a training run of latents.
        out: folder for the pictures and `explore.json`; `workdir/explore` when None.
        num: samples whose neighbours are looked for; 100 when None.
        seed: of the latents.
        arithmetic: numbers of samples of that seed, '1,2,3-4,5,6+7,8,9': the mean of the first,
            less that of the second, plus that of the third (Radford et al. 2015, section 6.3.2).
        which: checkpoint, see `restore`.
        overrides: see `merge_config`.

    Returns:
        The folder, and what is known of memorisation in a line.

    Raises:
        UserError: there is no such run, or `arithmetic` isn't as above.
    """
    terms = None if arithmetic is None else parse_arithmetic(arithmetic)
    run, networks, state = restore(workdir, which, require_latents=True)
    run = run._replace(config=merge_config(run.config, overrides))
    out = run_dir.check_writable(out or epath.Path(workdir).expanduser() / 'explore', '--out')
    made = LatentExplorer(run, networks, state, Sampler(networks.generator, run.config), seed)
    interpolate(made, out)
    truncate(made, out)
    follow_directions(made, out)
    if terms is not None:
        calculate(made, out, terms)
    found = find_nearest_images(made, out, num or 100)
    write_atomic(out / 'explore.json', f'{json.dumps(found, indent=2)}\n'.encode())
    near = found['median_distance_to_training_images']
    distances = [
        f'{what} in {space} {near[space][what]:.4g}' for space in near for what in near[space]
    ]
    return out, ', '.join(distances)


def slerp(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """The point at `share` of the great circle from one latent `[d]` to another.

    White 2016 (arXiv:1609.04468): between two of N(0, I) the straight line leaves the shell where
    latents lie. Norms are interpolated linearly.
    """
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    a, b = start / lengths[0], end / lengths[1]
    angle = np.arccos(np.clip(a @ b, -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return (1.0 - share) * start + share * end
    way = (np.sin((1.0 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    return way * ((1.0 - share) * lengths[0] + share * lengths[1])


def interpolate(made: LatentExplorer, out: epath.Path) -> None:
    """`interpolation.png`, a row from each latent to the next, and `interpolation.gif`."""
    latents = made.sampler.latents(made.seed, _ROWS + 1)
    shares = np.linspace(0.0, 1.0, _WALK)
    ways = [slerp(a, b, s) for a, b in itertools.pairwise(latents) for s in shares]
    picture = images.grid(made.draw(np.stack(ways)), columns=_WALK)
    images.write_png(out / 'interpolation.png', picture)
    shares = np.arange(4 * _WALK) / (4 * _WALK)
    ends = np.roll(latents, -1, axis=0)  # and back to the first
    ways = [slerp(a, b, s) for a, b in zip(latents, ends, strict=True) for s in shares]
    images.write_gif(out / 'interpolation.gif', made.draw(np.stack(ways)), _MILLISECONDS)


def truncate(made: LatentExplorer, out: epath.Path) -> None:
    """`truncation.png`: the same latents times 0 to 1.25, a row each."""
    latents = made.sampler.latents(made.seed, _WALK)
    scaled = np.concatenate([latents * share for share in _TRUNCATIONS])
    picture = images.grid(made.draw(scaled), columns=_WALK)
    images.write_png(out / 'truncation.png', picture)


def directions(params: dict, count: int) -> np.ndarray:
    """The unit latents `[count, d]` that move G's first layer most (SeFa).

    Shen & Zhou 2021 (arXiv:2007.06600, eq. 5): eigenvectors of W W^T of the largest eigenvalues, W
    `[d, features]` being the kernel of the first dense layer. The authors' code first scales each
    of W's columns to unit length; the paper's equation, followed here, does not.
    """
    first = params['stem_0'] if 'stem_0' in params else params['project']
    kernel = np.asarray(first['kernel'], np.float64)
    _, vectors = np.linalg.eigh(kernel @ kernel.T)
    return vectors.T[::-1][:count]


def follow_directions(made: LatentExplorer, out: epath.Path) -> None:
    """`directions.png`: two latents along each direction, a row for each of both."""
    found = directions(made.state.ema_params, _DIRECTIONS)
    latents = made.sampler.latents(made.seed, 2)
    moved = [z + shift * way for way in found for z in latents for shift in _SHIFTS]
    picture = images.grid(made.draw(np.stack(moved)), columns=len(_SHIFTS))
    images.write_png(out / 'directions.png', picture)


def parse_arithmetic(arithmetic: str) -> list[list[int]]:
    """'1,2-3,4+5' to [[1, 2], [3, 4], [5]]."""
    numbers = r'(\d{1,9}(?:,\d{1,9})*)'
    match = re.fullmatch(f'{numbers}-{numbers}\\+{numbers}', arithmetic.replace(' ', ''))
    if match is None:
        raise UserError(
            f'--arithmetic={arithmetic} must be of three lists of samples, 1,2,3-4,5,6+7,8,9 say'
        )
    terms = [[int(number) for number in group.split(',')] for group in match.groups()]
    if max(map(max, terms)) >= 10**6:
        raise UserError(f'--arithmetic={arithmetic}: samples are numbered below 1,000,000')
    return terms


def calculate(made: LatentExplorer, out: epath.Path, terms: list[list[int]]) -> None:
    """`arithmetic.png`: a row for each term, its samples and their mean; then the result."""
    latents = made.sampler.latents(made.seed, max(map(max, terms)) + 1)
    means = [latents[term].mean(axis=0) for term in terms]
    result = means[0] - means[1] + means[2]
    width = max(map(len, terms)) + 1
    rows = []
    for term, mean in zip(terms, means, strict=True):
        pixels = made.draw(np.concatenate([latents[term], mean[None]]))
        white = np.full((width - len(pixels), *pixels.shape[1:]), 255, np.uint8)
        rows.append(np.concatenate([pixels[:-1], white, pixels[-1:]]))
    last = made.draw(result[None])
    white = np.full((width - 1, *last.shape[1:]), 255, np.uint8)
    rows.append(np.concatenate([white, last]))
    images.write_png(out / 'arithmetic.png', images.grid(np.concatenate(rows), columns=width))


def find_nearest_images(made: LatentExplorer, out: epath.Path, num: int) -> dict:
    """`neighbours.png`: samples, the training images nearest in pixels, and in D's features.

    Returns:
        Medians of the distance to the nearest training image: of samples, and of as many images
        that were not trained on, where the data set has a test split. Samples that are much nearer
        than those are remembered.
    """
    config = made.run.config
    source = sources.open_split(config, config.data.split)
    real = load_split(source).images
    samples = made.sampler(made.state, made.sampler.latents(made.seed, num))
    test = sources.open_test_split(config)
    held_out = None if test is None else read_images(made.seed, num, test)
    see = DiscriminatorFeatures(made.networks, made.state, _SIDE)
    spaces = {
        'pixels': lambda pixels: pixels.reshape(len(pixels), -1).astype(np.float32) / 255.0,
        'features': see,
    }
    columns, found = [samples[:_ROWS, None]], {}
    for name, embed in spaces.items():
        known = embed(real)
        distances, indices = nearest(embed(samples), known, _NEIGHBOURS)
        columns.append(real[indices[:_ROWS]])
        found[name] = {'of samples': float(np.median(distances[:, 0]))}
        if held_out is not None:
            apart, _ = nearest(embed(held_out), known, 1)
            found[name]['of test images'] = float(np.median(apart))
    rows = np.concatenate(columns, axis=1)
    picture = images.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1])
    images.write_png(out / 'neighbours.png', picture)
    return {'num': num, 'seed': made.seed, 'median_distance_to_training_images': found}

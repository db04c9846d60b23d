"""`--mode=explore`: explore the latent space and find the training images nearest to samples."""

import itertools
import re
from typing import NamedTuple

import numpy as np

from dcgan_jax.data import images, sources
from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.data.input_pipeline import load_split
from dcgan_jax.models import Networks
from dcgan_jax.run_description import Run
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_json
from dcgan_jax.sampling import Sampler, read_images
from dcgan_jax.tasks.discriminator_features import DiscriminatorFeatures
from dcgan_jax.tasks.nearest_neighbors import nearest
from dcgan_jax.tasks.options import TaskOptions, TaskResult
from dcgan_jax.tasks.outputs import OutputFolder, output_folder
from dcgan_jax.tasks.trained_run import merge_config, open_split, restore
from dcgan_jax.train_state import GANState

_ROWS = 8  # Rows of a grid.
_STEPS = 10  # Images per interpolation between two latents; a GIF has four times as many.
_MILLISECONDS = 60  # Duration of a GIF frame.
_SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
SHIFTS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # Along unit vectors; latents have norm ~10.
NUM_DIRECTIONS = 5
_NEIGHBORS = 5
_SIDE = 2  # Size of D's pooled feature maps.


class LatentExplorer(NamedTuple):
    """A trained run with its sampler and the seed of the latents."""

    run: Run
    networks: Networks
    state: GANState
    sampler: Sampler
    seed: int

    def generate(self, latents: np.ndarray) -> np.ndarray:
        """Generate images, uint8 `[N, H, W, C]`, of the run's first class or caption."""
        latents = latents.astype(np.float32)
        condition = self.networks.conditioner.default
        captions = self.state.generator.captions
        if not captions:
            return self.sampler(self.state, latents, np.full(len(latents), condition, np.int32))
        caption = np.asarray(captions['condition']['table'][condition : condition + 1])
        return self.sampler(self.state, latents, np.zeros(len(latents), np.int32), caption)


def run(options: TaskOptions) -> TaskResult:
    """Draw interpolations, truncations, directions and nearest neighbors of a run's samples.

    Files: `interpolation.png`, `interpolation.gif`, `truncation.png`, `directions.png`,
    `arithmetic.png` (with `arithmetic`), `neighbors.png` and `explore.json`.

    Args:
        options: Uses `workdir`, `config`, `out` (defaults to `workdir/explore`), `num` (number of
            samples whose nearest training images are found; defaults to 100), `seed` (of the
            latents), `checkpoint` and `arithmetic`: sample indices such as '1,2,3-4,5,6+7,8,9' for
            the mean latent of the first group, minus the mean of the second, plus the mean of the
            third (Radford et al. 2015, section 6.3.2).

    Returns:
        The folder and the median distances to the nearest training images.

    Raises:
        UserError: If `workdir` contains no run, or `arithmetic` is invalid.
    """
    terms = None if options.arithmetic is None else parse_arithmetic(options.arithmetic)
    trained = restore(options.workdir, options.checkpoint, require_latents=True)
    config = merge_config(trained.run.config, options.config)
    out = output_folder(options, 'explore', config, trained.check_workdir)
    source = open_split(trained.run, config, config.data.split)
    explorer = LatentExplorer(
        trained.run._replace(config=config),
        trained.networks,
        trained.state,
        trained.sampler,
        options.seed,
    )
    draw_interpolation(explorer, out)
    draw_truncation(explorer, out)
    draw_directions(explorer, out)
    if terms is not None:
        draw_arithmetic(explorer, out, terms)
    content = find_nearest_images(explorer, source, out, options.num or 100)
    write_json(out.file('explore.json'), content)
    medians = ', '.join(
        f'{name} ({space}) {value:.4g}'
        for space, values in content['median_distance_to_training_images'].items()
        for name, value in values.items()
    )
    return TaskResult(out.path, f'median distance to the nearest training image: {medians}')


def slerp(start: np.ndarray, end: np.ndarray, fraction: float) -> np.ndarray:
    """Interpolate spherically between two latents `[d]` (White 2016, arXiv:1609.04468).

    Unlike a straight line, the path stays close to the sphere on which N(0, I) is concentrated.
    Norms are interpolated linearly.
    """
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    a, b = start / lengths[0], end / lengths[1]
    angle = np.arccos(np.clip(a @ b, -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        return (1.0 - fraction) * start + fraction * end
    unit = (np.sin((1.0 - fraction) * angle) * a + np.sin(fraction * angle) * b) / np.sin(angle)
    return unit * ((1.0 - fraction) * lengths[0] + fraction * lengths[1])


def draw_interpolation(explorer: LatentExplorer, out: OutputFolder) -> None:
    """Write `interpolation.png`, a row from each latent to the next, and `interpolation.gif`."""
    latents = explorer.sampler.latents(explorer.seed, _ROWS + 1)
    fractions = np.linspace(0.0, 1.0, _STEPS)
    path = [slerp(a, b, f) for a, b in itertools.pairwise(latents) for f in fractions]
    picture = images.grid(explorer.generate(np.stack(path)), columns=_STEPS)
    images.write_png(out.file('interpolation.png'), picture)
    fractions = np.arange(4 * _STEPS) / (4 * _STEPS)
    ends = np.roll(latents, -1, axis=0)  # The GIF returns to the first latent.
    path = [slerp(a, b, f) for a, b in zip(latents, ends, strict=True) for f in fractions]
    frames = explorer.generate(np.stack(path))
    images.write_gif(out.file('interpolation.gif'), frames, _MILLISECONDS)


def draw_truncation(explorer: LatentExplorer, out: OutputFolder) -> None:
    """Write `truncation.png`: the same latents scaled by 0 to 1.25, with a row for each scale."""
    latents = explorer.sampler.latents(explorer.seed, _STEPS)
    scaled = np.concatenate([latents * scale for scale in _SCALES])
    picture = images.grid(explorer.generate(scaled), columns=_STEPS)
    images.write_png(out.file('truncation.png'), picture)


def directions(params: dict, count: int) -> np.ndarray:
    """Return the unit latents `[count, d]` that change the output of G's first layer most (SeFa).

    These are the eigenvectors of W W^T with the largest eigenvalues, where W `[d, features]` is the
    kernel of the first dense layer (Shen & Zhou 2021, arXiv:2007.06600, eq. 5). The authors' code
    first normalizes the columns of W, unlike the equation.
    """
    first = params['stem_0'] if 'stem_0' in params else params['project']
    kernel = np.asarray(first['kernel'], np.float64)
    _, vectors = np.linalg.eigh(kernel @ kernel.T)
    return vectors.T[::-1][:count]


def draw_directions(explorer: LatentExplorer, out: OutputFolder) -> None:
    """Write `directions.png`: for each direction, two rows with a latent moved along it."""
    axes = directions(explorer.state.ema_params, NUM_DIRECTIONS)
    latents = explorer.sampler.latents(explorer.seed, 2)
    moved = [z + shift * axis for axis in axes for z in latents for shift in SHIFTS]
    picture = images.grid(explorer.generate(np.stack(moved)), columns=len(SHIFTS))
    images.write_png(out.file('directions.png'), picture)


def parse_arithmetic(arithmetic: str) -> list[list[int]]:
    """Parse latent arithmetic, e.g. '1,2-3,4+5' to [[1, 2], [3, 4], [5]]."""
    numbers = r'(\d{1,9}(?:,\d{1,9})*)'
    match = re.fullmatch(f'{numbers}-{numbers}\\+{numbers}', arithmetic.replace(' ', ''))
    if match is None:
        raise UserError(
            f'--arithmetic={arithmetic} must be three lists of sample indices, e.g. '
            '1,2,3-4,5,6+7,8,9'
        )
    terms = [[int(number) for number in group.split(',')] for group in match.groups()]
    if max(map(max, terms)) >= 10**6:
        raise UserError(f'--arithmetic={arithmetic}: sample indices must be below 1,000,000')
    return terms


def draw_arithmetic(explorer: LatentExplorer, out: OutputFolder, terms: list[list[int]]) -> None:
    """Write `arithmetic.png`: a row with the samples and the mean of each term, then the result."""
    latents = explorer.sampler.latents(explorer.seed, max(map(max, terms)) + 1)
    means = [latents[term].mean(axis=0) for term in terms]
    result = means[0] - means[1] + means[2]
    width = max(map(len, terms)) + 1
    rows = []
    for term, mean in zip(terms, means, strict=True):
        pixels = explorer.generate(np.concatenate([latents[term], mean[None]]))
        white = np.full((width - len(pixels), *pixels.shape[1:]), 255, np.uint8)
        rows.append(np.concatenate([pixels[:-1], white, pixels[-1:]]))
    last = explorer.generate(result[None])
    white = np.full((width - 1, *last.shape[1:]), 255, np.uint8)
    rows.append(np.concatenate([white, last]))
    images.write_png(out.file('arithmetic.png'), images.grid(np.concatenate(rows), columns=width))


def find_nearest_images(
    explorer: LatentExplorer, source: ImageSource, out: OutputFolder, num: int
) -> dict:
    """Write `neighbors.png`: samples and their nearest training images.

    Pixels are compared with all training images, features of D with at most
    `config.evaluation.num_real` evenly spaced ones, because computing them takes long on CPUs.

    Returns:
        Median distances to the nearest training image, of samples and, if there is a test split, of
        test images. Samples that are much closer than test images indicate memorization.
    """
    config = explorer.run.config
    real = load_split(source).images
    samples = explorer.sampler(explorer.state, explorer.sampler.latents(explorer.seed, num))
    test = sources.open_test_split(config)
    test_images = None
    if test is not None:
        test_images = read_images(explorer.seed, min(num, len(test)), test)
    spaces = {
        'pixels': lambda pixels: pixels.reshape(len(pixels), -1).astype(np.float32) / 255.0,
        'features': DiscriminatorFeatures(explorer.networks, explorer.state, _SIDE),
    }
    columns, compared, medians = [samples[:_ROWS, None]], {}, {}
    for name, embed in spaces.items():
        num_real = len(real) if name == 'pixels' else min(len(real), config.evaluation.num_real)
        candidates = real[np.arange(num_real) * len(real) // num_real]
        known = embed(candidates)
        distances, indices = nearest(embed(samples), known, _NEIGHBORS)
        columns.append(candidates[indices[:_ROWS]])
        compared[name] = num_real
        medians[name] = {'samples': float(np.median(distances[:, 0]))}
        if test_images is not None:
            distances, _ = nearest(embed(test_images), known, 1)
            medians[name]['test_images'] = float(np.median(distances))
    rows = np.concatenate(columns, axis=1)
    picture = images.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1])
    images.write_png(out.file('neighbors.png'), picture)
    return {
        'num': num,
        'num_test_images': 0 if test_images is None else len(test_images),
        'seed': explorer.seed,
        'num_training_images': compared,
        'median_distance_to_training_images': medians,
    }

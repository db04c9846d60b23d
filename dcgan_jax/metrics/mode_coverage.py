"""Mode coverage on `shapes`: which of the 1,000 modes are covered by samples, and how evenly.

A sample is assigned to the mode of the rendered image that is nearest in the least-squares sense.
No classifier is trained, and real images are classified without errors.
"""

import functools
from typing import NamedTuple

import numpy as np

from dcgan_jax.data import shapes_builder
from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.metrics.metric import Inputs, Metric, Need
from dcgan_jax.runtime.errors import UserError

UNRECOGNIZED = -1
IMAGE_SHAPE = (shapes_builder.SIZE, shapes_builder.SIZE, 3)
# A sample is unrecognized if it differs from the nearest image by more than this root mean square
# (of 255). Real images differ by up to 17, because poses are searched on a grid; by up to 26 with
# Gaussian noise of standard deviation 10, a 3x3 box blur or JPEG compression of quality 75; and by
# up to 30 with all three.
MAX_RMS = 28.0
# It is also unrecognized if the squared residual exceeds this fraction of the squared difference
# between the nearest image and its background; a background without a shape has a fraction of 1.
MAX_RESIDUAL_FRACTION = 0.75

_PIXELS = shapes_builder.SIZE**2
_COLORS = np.array(list(shapes_builder.COLORS.values()), np.float32)
_CANDIDATES = 2  # Number of colors considered in the search for a shape.
_CHUNK = 64  # Number of samples per chunk, small enough that the working set fits in the cache.
# Grid of poses of `shapes_builder.random_pose`: offsets and radii in pixels, angles in degrees.
_AXES = (
    np.linspace(-2, 2, 9),
    np.linspace(-2, 2, 9),
    np.linspace(9.5, 11.5, 5),
    np.linspace(-10, 10, 9),
)
_COARSE = (slice(None), *[slice(None, None, 2)] * len(_AXES))  # Every second pose along each axis.


class ModeCoverage(NamedTuple):
    """Distribution of samples over the modes.

    Attributes:
      modes: Number of covered modes, up to 1,000.
      kl: KL(p || uniform) in nats, see `mode_coverage`.
      unrecognized: Fraction of unrecognized samples, in [0, 1].
      counts: Number of samples of each mode, int64 [1000].
    """

    modes: int
    kl: float
    unrecognized: float
    counts: np.ndarray


def mode_coverage(images: np.ndarray, min_samples: int = 1) -> ModeCoverage:
    """Count the covered modes of `shapes`, analogously to Stacked MNIST.

    For Stacked MNIST, Metz et al. 2017 (arXiv:1611.02163) and Srivastava et al. 2017
    (arXiv:1705.07761) classify 25,600 samples of 1,000 modes with a network. Here, the distribution
    p in the KL divergence is that of the recognized samples only: kl = sum_m p_m ln(1000 p_m) with
    p_m = counts[m] / counts.sum(). It is 0 for a uniform distribution, and ln 1000 = 6.91 for a
    single mode or if no sample is recognized. Its expected value for N perfect samples is about
    999 / (2 N) if N is large.

    Args:
      images: uint8 [N, 32, 32, 3] with N at least 1.
      min_samples: Number of samples that a covered mode must have, at least 1.

    Raises:
      UserError: If the images have a different shape or dtype.
    """
    labels = classify(images)
    counts = np.bincount(labels[labels != UNRECOGNIZED], minlength=shapes_builder.NUM_MODES)
    recognized = counts.sum()
    if recognized:
        p = counts[counts > 0] / recognized
        kl = float((p * np.log(shapes_builder.NUM_MODES * p)).sum())
    else:
        kl = float(np.log(shapes_builder.NUM_MODES))
    return ModeCoverage(
        modes=int((counts >= min_samples).sum()),
        kl=kl,
        unrecognized=float(1 - recognized / len(images)),
        counts=counts,
    )


def classify(images: np.ndarray) -> np.ndarray:
    """Return the mode of `shapes` of each image.

    Args:
      images: uint8 [N, 32, 32, 3] with N at least 1.

    Returns:
      Modes in [0, 1000) as in `shapes_builder.split_mode`, or `UNRECOGNIZED`, int64 [N].

    Raises:
      UserError: If the images have a different shape or dtype.
    """
    if images.shape[1:] != IMAGE_SHAPE or images.dtype != np.uint8 or not len(images):
        raise UserError(
            f'mode coverage needs uint8 images of shape {IMAGE_SHAPE}, not {images.dtype} images '
            f'of shape {images.shape[1:]}: use samples of a model of the data set shapes'
        )
    starts = range(0, len(images), _CHUNK)
    results = [_find_nearest(images[start : start + _CHUNK]) for start in starts]
    mode, residual, energy = map(np.concatenate, zip(*results, strict=True))
    close = residual <= MAX_RMS**2 * 3 * _PIXELS
    return np.where(close & (residual <= MAX_RESIDUAL_FRACTION * energy), mode, UNRECOGNIZED)


class _Templates(NamedTuple):
    """Rendered components of all images; P is the number of pixels, and poses are (9, 9, 5, 9).

    Attributes:
      backgrounds: Images of the backgrounds, float32 [10, P, 3].
      frame: Pixels that are not covered by any shape in any pose, bool [P].
      contrast: |color - background|^2, float32 [10 backgrounds, P, 10 colors].
      alpha: Coverage by the shapes, float32 [10, *poses, P].
      energy: Sum over the pixels of alpha^2 contrast, float32 [10 backgrounds, 10 colors, 10,
        *poses].
    """

    backgrounds: np.ndarray
    frame: np.ndarray
    contrast: np.ndarray
    alpha: np.ndarray
    energy: np.ndarray


@functools.cache
def _templates() -> _Templates:
    """Render the templates once per process; this takes seconds and 170 MB."""
    backgrounds = shapes_builder.background_images().reshape(-1, _PIXELS, 3).astype(np.float32)
    contrast = np.square(_COLORS - backgrounds[:, :, None]).sum(-1)
    grid = [axis.ravel() for axis in np.meshgrid(*_AXES, indexing='ij')]
    center = shapes_builder.SIZE / 2 + np.stack(grid[:2], axis=1)
    pose = shapes_builder.Pose(center, grid[2], np.deg2rad(grid[3]))
    num_poses, num_shapes = len(pose.radius), len(shapes_builder.SHAPES)
    alpha = np.empty((num_shapes, num_poses, _PIXELS), np.float32)
    energy = np.empty((len(backgrounds), len(_COLORS), num_shapes, num_poses), np.float32)
    for shape in range(num_shapes):
        coverage = shapes_builder.coverage(np.full(num_poses, shape), pose)
        alpha[shape] = coverage.reshape(num_poses, _PIXELS)
        energy[:, :, shape] = np.einsum('tp,bpc->bct', alpha[shape] ** 2, contrast, optimize=True)
    poses = [len(axis) for axis in _AXES]
    return _Templates(
        backgrounds=backgrounds,
        frame=(alpha == 0).all(axis=(0, 1)),
        contrast=contrast,
        alpha=alpha.reshape(-1, *poses, _PIXELS),
        energy=energy.reshape(*energy.shape[:3], *poses),
    )


@functools.cache
def _coarse() -> tuple[np.ndarray, np.ndarray]:
    """Return alpha [T, P] and energy [10 backgrounds, 10 colors, T] on the coarse grid of poses."""
    templates = _templates()
    energy = templates.energy[:, :, *_COARSE]
    return (
        templates.alpha[_COARSE].reshape(-1, _PIXELS),
        energy.reshape(*energy.shape[:2], -1),
    )


def _find_nearest(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the rendered image that is nearest to each of the images, uint8 [M, 32, 32, 3].

    A rendered image is b + alpha (c - b) for a background b and a shape of color c and coverage
    alpha. With d = x - b, the squared residual of a sample x is
    |d|^2 - 2 sum alpha <d, c - b> + sum alpha^2 |c - b|^2. Its last term is called the energy.

    Returns:
      (modes int [M], squared residuals [M], energies [M]).
    """
    templates = _templates()
    pixels = images.reshape(len(images), _PIXELS, 3).astype(np.float32)
    background = _background(pixels)
    background_pixels = templates.backgrounds[background]
    difference = pixels - background_pixels
    # <d, c - b> of each pixel and color.
    products = difference @ _COLORS.T - (difference * background_pixels).sum(-1, keepdims=True)
    colors = _likely_colors(products, templates.contrast[background])

    rows = np.arange(len(images))
    alpha, energy = _coarse()
    gain = np.stack(
        [
            2 * (products[rows, :, color] @ alpha.T) - energy[background, color]
            for color in colors.T
        ],
        axis=1,
    ).reshape(len(images), -1)
    candidate, template = np.divmod(gain.argmax(1), len(alpha))
    color = colors[rows, candidate]
    coarse_shape = templates.alpha[_COARSE].shape[:-1]
    shape, *pose = np.unravel_index(template, coarse_shape)
    gain, energy = np.transpose(
        [
            _refine(products[row, :, color[row]], background[row], color[row], shape[row], index)
            for row, index in enumerate(np.transpose(pose))
        ]
    )
    mode = np.ravel_multi_index((shape, color, background), (10, 10, 10))
    return mode, np.square(difference).sum((1, 2)) - gain, energy


def _background(pixels: np.ndarray) -> np.ndarray:
    """Return the background nearest to each sample [M, P, 3] on the pixels of the frame, [M]."""
    templates = _templates()
    frames = pixels[:, templates.frame].reshape(len(pixels), -1)
    known = templates.backgrounds[:, templates.frame].reshape(len(templates.backgrounds), -1)
    return (np.square(known).sum(1) - 2 * frames @ known.T).argmin(1)


def _likely_colors(products: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Return the colors that would fit samples best if each pixel had an arbitrary coverage.

    Args:
      products: <d, c - b> of each pixel and color, [M, P, 10].
      contrast: |c - b|^2 of each pixel and color, [M, P, 10].

    Returns:
      Indices of colors [M, _CANDIDATES], the best first.
    """
    fraction = np.clip(products / contrast, 0, 1)
    gain = ((2 * products - fraction * contrast) * fraction).sum(1)
    return np.argsort(-gain, axis=1)[:, :_CANDIDATES]


def _refine(
    products: np.ndarray, background: int, color: int, shape: int, pose: np.ndarray
) -> tuple[float, float]:
    """Search the fine grid of poses around a pose of the coarse grid.

    Args:
      products: <d, c - b> of each pixel, [P].
      background: Index of the background.
      color: Index of the color.
      shape: Index of the shape.
      pose: Index of the pose along each axis of the coarse grid.

    Returns:
      (reduction of the squared residual, energy) of the best pose.
    """
    templates = _templates()
    around = tuple(slice(max(0, 2 * index - 1), 2 * index + 2) for index in pose)
    alpha = templates.alpha[shape][around].reshape(-1, _PIXELS)
    energy = templates.energy[background, color, shape][around].ravel()
    gain = 2 * (alpha @ products) - energy
    best = gain.argmax()
    return gain[best], energy[best]


def _compute(inputs: Inputs) -> dict[str, float]:
    coverage = mode_coverage(inputs.images)
    return {
        'modes': coverage.modes,
        'modes_kl': coverage.kl,
        'modes_unrecognized': coverage.unrecognized,
    }


def _check_source(source: ImageSource) -> None:
    if source.name.split('/')[0] != _DATA_SET:
        raise UserError(
            f'config.evaluation.metrics: mode_coverage needs the data set {_DATA_SET!r}, not '
            f'{source.name}: remove it'
        )
    if source.image_shape != IMAGE_SHAPE:
        raise UserError(
            f'config.evaluation.metrics: mode_coverage needs images of shape {IMAGE_SHAPE}, not '
            f'{source.image_shape}: remove it, or reset config.data.image_size'
        )


_DATA_SET = 'shapes'
_LABELS = {
    'modes': f'modes of {shapes_builder.NUM_MODES:,}',
    'modes_kl': 'KL to uniform',
    'modes_unrecognized': 'fraction unrecognized',
}
METRIC = Metric(
    compute=_compute,
    results=tuple(_LABELS),
    needs=Need.IMAGES,
    min_samples=1,
    label=lambda name, extractor: _LABELS[name],
    smaller_is_better=('modes_kl', 'modes_unrecognized'),
    settings={
        'modes_data_set': _DATA_SET,
        'modes_max_rms': MAX_RMS,
        'modes_max_residual_fraction': MAX_RESIDUAL_FRACTION,
    },
    check_source=_check_source,
)

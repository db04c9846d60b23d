"""Which of the 1,000 modes of `shapes` samples show, and how evenly: counted, not estimated.

The data set draws its pictures, so the picture that explains a sample best, in the least squares
sense, can be found by drawing: no network is trained, and true images are told apart without error.
"""

import functools
from typing import NamedTuple

import numpy as np

from dcgan_jax.data import shapes_builder
from dcgan_jax.runtime.errors import UserError

UNRECOGNISED = -1
IMAGE_SHAPE = (shapes_builder.SIZE, shapes_builder.SIZE, 3)
# A sample shows no mode if the best explanation differs from it by more than this root mean square
# (of 255). True images differ by up to 17, a pose lying between those searched; with Gaussian noise
# of 10, a 3x3 box blur or JPEG of quality 75 by up to 26; with all three by up to 30.
MAX_RMS = 28.0
# Nor if it leaves more than this share of what the shape changes on its background, as squares: a
# background without any shape leaves all of it.
MAX_SHARE = 0.75

_PIXELS = shapes_builder.SIZE**2
_COLOURS = np.array(list(shapes_builder.COLOURS.values()), np.float32)
_CANDIDATES = 2  # colors that the search for a shape chooses from
_CHUNK = 64  # samples at a time: what they need fits a processor's cache
# Poses of `shapes_builder.random_pose`: centers (from the middle) and radii in pixels, degrees.
_AXES = (
    np.linspace(-2, 2, 9),
    np.linspace(-2, 2, 9),
    np.linspace(9.5, 11.5, 5),
    np.linspace(-10, 10, 9),
)
_COARSE = (slice(None), *[slice(None, None, 2)] * len(_AXES))  # every shape, every other pose


class ModeCoverage(NamedTuple):
    """How samples spread over the modes.

    Attributes:
      modes: Modes that enough samples show, of 1,000.
      kl: KL(p || uniform) in nats, see `mode_coverage`.
      unrecognized: Share of the samples that show no mode, in [0, 1].
      counts: Samples of each mode, int64 [1000].
    """

    modes: int
    kl: float
    unrecognized: float
    counts: np.ndarray


def mode_coverage(images: np.ndarray, min_samples: int = 1) -> ModeCoverage:
    """Counts the modes of `shapes` that samples show, as Stacked MNIST's are reported.

    After Metz et al. 2017 (arXiv:1611.02163) and Srivastava et al. 2017 (arXiv:1705.07761), who
    draw 25,600 samples of 1,000 modes; an exact search takes the place of their classifier. Theirs
    gives every sample a mode; here p, the histogram in the KL divergence, is over the recognized
    samples alone: kl = sum over modes m of p_m ln(1000 p_m), where p_m = counts[m] / counts.sum().
    It is 0 for all modes equally often and ln 1000 = 6.91 for a single mode, and is that too where
    no sample is recognized. N perfect samples have about 999 / (2 N) of it by chance, for large N.

    Args:
      images: uint8 [N, 32, 32, 3], N at least 1.
      min_samples: Samples that a mode needs to count as covered, at least 1.

    Raises:
      UserError: The images are of another shape or type.
    """
    found = classify(images)
    counts = np.bincount(found[found != UNRECOGNISED], minlength=shapes_builder.NUM_MODES)
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
    """Finds the mode of `shapes` that each image shows.

    Args:
      images: uint8 [N, 32, 32, 3], N at least 1.

    Returns:
      int64 [N]: the modes in [0, 1000), numbered as in `shapes_builder.split_mode`, or
        `UNRECOGNISED`.

    Raises:
      UserError: The images are of another shape or type.
    """
    if images.shape[1:] != IMAGE_SHAPE or images.dtype != np.uint8 or not len(images):
        raise UserError(
            f'modes are counted in uint8 images of {IMAGE_SHAPE}, not in {images.dtype} images of '
            f'shape {images.shape[1:]}: use samples of a model of the data set shapes'
        )
    explanations = [
        _explain(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)
    ]
    mode, residual, energy = map(np.concatenate, zip(*explanations, strict=True))
    close = residual <= MAX_RMS**2 * 3 * _PIXELS
    return np.where(close & (residual <= MAX_SHARE * energy), mode, UNRECOGNISED)


class _Templates(NamedTuple):
    """All that a sample may consist of. P: pixels; poses: 9 x 9 x 5 x 9.

    Attributes:
      behind: Backgrounds, float32 [10, P, 3].
      frame: Pixels that no shape covers in any pose, bool [P].
      contrast: |color - background|^2, float32 [10 backgrounds, P, 10 colors].
      alpha: What shapes cover, float32 [10, *poses, P].
      energy: Sum over the pixels of alpha^2 contrast, float32 [10 backgrounds, 10 colors, 10,
        *poses].
    """

    behind: np.ndarray
    frame: np.ndarray
    contrast: np.ndarray
    alpha: np.ndarray
    energy: np.ndarray


@functools.cache
def _templates() -> _Templates:
    """Draws the templates, once a process: it takes seconds, and they take 170 MB."""
    behind = shapes_builder.background_images().reshape(-1, _PIXELS, 3).astype(np.float32)
    contrast = np.square(_COLOURS - behind[:, :, None]).sum(-1)
    grid = [axis.ravel() for axis in np.meshgrid(*_AXES, indexing='ij')]
    center = shapes_builder.SIZE / 2 + np.stack(grid[:2], axis=1)
    pose = shapes_builder.Pose(center, grid[2], np.deg2rad(grid[3]))
    number = len(pose.radius)
    alpha = np.empty((len(shapes_builder.SHAPES), number, _PIXELS), np.float32)
    energy = np.empty((len(behind), len(_COLOURS), len(shapes_builder.SHAPES), number), np.float32)
    for shape in range(len(shapes_builder.SHAPES)):
        drawn = shapes_builder.coverage(np.full(number, shape), pose)
        alpha[shape] = drawn.reshape(number, _PIXELS)
        energy[:, :, shape] = np.einsum('tp,bpc->bct', alpha[shape] ** 2, contrast, optimize=True)
    poses = [len(axis) for axis in _AXES]
    return _Templates(
        behind=behind,
        frame=(alpha == 0).all(axis=(0, 1)),
        contrast=contrast,
        alpha=alpha.reshape(-1, *poses, _PIXELS),
        energy=energy.reshape(*energy.shape[:3], *poses),
    )


@functools.cache
def _coarse() -> tuple[np.ndarray, np.ndarray]:
    """Alpha [T, P] and energy [10 backgrounds, 10 colors, T] of every shape and other pose."""
    templates = _templates()
    energy = templates.energy[:, :, *_COARSE]
    return (
        templates.alpha[_COARSE].reshape(-1, _PIXELS),
        energy.reshape(*energy.shape[:2], -1),
    )


def _explain(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the best explanation of images uint8 [M, 32, 32, 3].

    A sample x is background b plus alpha (c - b) of a shape of color c. With d = x - b, the
    squared residual is |d|^2 - 2 sum alpha <d, c - b> + sum alpha^2 |c - b|^2.

    Returns:
      (modes int [M], squared residuals [M], the last of those three terms [M]).
    """
    templates = _templates()
    pixels = images.reshape(len(images), _PIXELS, 3).astype(np.float32)
    background = _background(pixels)
    behind = templates.behind[background]
    difference = pixels - behind
    along = difference @ _COLOURS.T - (difference * behind).sum(-1, keepdims=True)
    colors = _likely_colors(along, templates.contrast[background])

    rows = np.arange(len(images))
    alpha, energy = _coarse()
    gain = np.stack(
        [2 * (along[rows, :, color] @ alpha.T) - energy[background, color] for color in colors.T],
        axis=1,
    ).reshape(len(images), -1)
    candidate, template = np.divmod(gain.argmax(1), len(alpha))
    color = colors[rows, candidate]
    coarse_shape = templates.alpha[_COARSE].shape[:-1]
    shape, *pose = np.unravel_index(template, coarse_shape)
    gain, energy = np.transpose(
        [
            _refine(along[row, :, color[row]], background[row], color[row], shape[row], where)
            for row, where in enumerate(np.transpose(pose))
        ]
    )
    mode = np.ravel_multi_index((shape, color, background), (10, 10, 10))
    return mode, np.square(difference).sum((1, 2)) - gain, energy


def _background(pixels: np.ndarray) -> np.ndarray:
    """The nearest background of each sample [M, P, 3], by the pixels that no shape covers: [M]."""
    templates = _templates()
    seen = pixels[:, templates.frame].reshape(len(pixels), -1)
    known = templates.behind[:, templates.frame].reshape(len(templates.behind), -1)
    return (np.square(known).sum(1) - 2 * seen @ known.T).argmin(1)


def _likely_colors(along: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """The colors that explain samples best if each pixel could be covered to any part.

    Args:
      along: <d, c - b> of each pixel and color, [M, P, 10].
      contrast: |c - b|^2 of each pixel and color, [M, P, 10].

    Returns:
      [M, _CANDIDATES], the best first.
    """
    part = np.clip(along / contrast, 0, 1)
    gain = ((2 * along - part * contrast) * part).sum(1)
    return np.argsort(-gain, axis=1)[:, :_CANDIDATES]


def _refine(
    along: np.ndarray, background: int, color: int, shape: int, pose: np.ndarray
) -> tuple[float, float]:
    """The best of the poses around one of the coarse grid.

    Args:
      along: <d, c - b> of each pixel, [P].
      background: Number of the background.
      color: Number of the color.
      shape: Number of the shape.
      pose: Index of the pose along each axis of the coarse grid.

    Returns:
      (by how much it lessens the squared residual, its energy).
    """
    templates = _templates()
    around = tuple(slice(max(0, 2 * index - 1), 2 * index + 2) for index in pose)
    alpha = templates.alpha[shape][around].reshape(-1, _PIXELS)
    energy = templates.energy[background, color, shape][around].ravel()
    gain = 2 * (alpha @ along) - energy
    best = gain.argmax()
    return gain[best], energy[best]

"""Shapes: a procedurally generated data set with exactly 1,000 known modes.

Each image shows one of 10 filled shapes in one of 10 colors on one of 10 backgrounds, so that the
modes covered by a GAN can be counted. The data set needs no download, and small networks learn it
within minutes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

SIZE = 32  # Height and width in pixels.
PER_MODE = {'train': 20, 'test': 2}  # Images of each mode by split.
SEED = 0

COLORS = {
    'red': (220, 20, 30),
    'orange': (255, 130, 0),
    'yellow': (255, 235, 30),
    'lime': (130, 220, 0),
    'green': (0, 130, 60),
    'cyan': (40, 225, 235),
    'blue': (30, 90, 255),
    'purple': (125, 30, 190),
    'magenta': (255, 50, 200),
    'pink': (255, 175, 180),
}
# Patterns are gray, so that only shapes have vivid colors.
_PLAIN = {
    'black': (0, 0, 0),
    'white': (255, 255, 255),
    'gray': (128, 128, 128),
    'navy': (16, 24, 88),
    'maroon': (88, 16, 24),
}
_PATTERNS = {
    'horizontal_stripes': lambda y, x: (y // 4) % 2,
    'vertical_stripes': lambda y, x: (x // 4) % 2,
    'diagonal_stripes': lambda y, x: ((x + y) // 8) % 2,
    'checkers': lambda y, x: (x // 8 + y // 8) % 2,
    'gradient': lambda y, x: (y + 0 * x) / (SIZE - 1),
}
_PATTERN_GRAYS = (56, 168)
BACKGROUNDS = (*_PLAIN, *_PATTERNS)


def _polar(radius: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Return points (x, y), y down, [V, 2], for radii [V] and clockwise angles from the top [V]."""
    angle = np.deg2rad(degrees)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _polygon_distance(x: np.ndarray, y: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Return signed distances of points [...] to a simple polygon [V, 2], negative inside.

    The magnitude is the distance to the nearest edge. The sign is determined by the parity of the
    number of edges that a ray crosses.
    """
    squared = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        squared = np.minimum(squared, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
        crosses = (y < ay) != (y < by)
        if ey != 0:
            inside ^= crosses & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -1.0, 1.0) * np.sqrt(squared)


def _circle_distance(x, y, radius, center=(0.0, 0.0)) -> np.ndarray:
    return np.hypot(x - center[0], y - center[1]) - radius


def _ring(x, y):
    return np.abs(_circle_distance(x, y, 0.72)) - 0.24


def _crescent(x, y):
    return np.maximum(_circle_distance(x, y, 1.0), -_circle_distance(x, y, 0.82, (0.5, -0.2)))


def _heart(x, y):
    """Return the signed distance to two discs above a triangle that touches both."""
    lobes = _circle_distance(np.abs(x), y, 0.52, (0.47, -0.34))
    return np.minimum(lobes, _polygon_distance(x, y, _HEART_POINT))


_ROTATIONS = [np.array([(c, s), (-s, c)]) for c, s in [(1, 0), (0, 1), (-1, 0), (0, -1)]]
_SQUARE = np.array([(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)])
_DIAMOND = np.array([(0, -1.1), (0.8, 0), (0, 1.1), (-0.8, 0)])
_TRIANGLE = np.array([(0, -1.0), (1.06, 0.86), (-1.06, 0.86)])
_STAR = _polar(np.tile([1.15, 0.46], 5), np.arange(0, 360, 36)) + np.array([0, 0.08])
_HOURGLASS = np.array([(-0.88, -1), (0.88, -1), (0.22, 0), (0.88, 1), (-0.88, 1), (-0.22, 0)])
_PLUS_CORNER = np.array([(0.34, -1), (0.34, -0.34), (1, -0.34)])
_PLUS = np.concatenate([_PLUS_CORNER @ rotation for rotation in _ROTATIONS])
_HEART_POINT = np.array([(-0.9, -0.05), (0.0, -0.5), (0.9, -0.05), (0, 1.0)])

# Signed distances in units of the shape's radius; x points right, y down, negative is inside.
SHAPES = {
    'circle': lambda x, y: _circle_distance(x, y, 0.96),
    'square': lambda x, y: _polygon_distance(x, y, _SQUARE),
    'triangle': lambda x, y: _polygon_distance(x, y, _TRIANGLE),
    'star': lambda x, y: _polygon_distance(x, y, _STAR),
    'plus': lambda x, y: _polygon_distance(x, y, _PLUS),
    'ring': _ring,
    'diamond': lambda x, y: _polygon_distance(x, y, _DIAMOND),
    'heart': _heart,
    'crescent': _crescent,
    'hourglass': lambda x, y: _polygon_distance(x, y, _HOURGLASS),
}
NUM_MODES = len(SHAPES) * len(COLORS) * len(BACKGROUNDS)


class Pose(NamedTuple):
    """Poses of N shapes: center [N, 2] (x, y) and radius [N] in pixels, angle [N] in radians."""

    center: np.ndarray
    radius: np.ndarray
    angle: np.ndarray


def split_mode(mode: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split modes [N] in [0, 1000) into shape, foreground and background, each [N] in [0, 10)."""
    return np.unravel_index(mode, (len(SHAPES), len(COLORS), len(BACKGROUNDS)))


def random_pose(n: int, rng: np.random.Generator) -> Pose:
    """Sample poses with small variation, so that a square does not look like a diamond."""
    u = rng.random((4, n))
    return Pose(
        center=SIZE / 2 + 2 * (2 * u[:2].T - 1),
        radius=10.5 + 1.0 * (2 * u[2] - 1),
        angle=np.deg2rad(10) * (2 * u[3] - 1),
    )


def background_images() -> np.ndarray:
    """Return the backgrounds as uint8 [10, SIZE, SIZE, 3] in the order of `BACKGROUNDS`."""
    y, x = np.mgrid[:SIZE, :SIZE]
    low, high = _PATTERN_GRAYS
    images = [np.full((SIZE, SIZE, 3), color, float) for color in _PLAIN.values()]
    for pattern in _PATTERNS.values():
        gray = low + (high - low) * pattern(y, x)
        images.append(np.repeat(gray[..., None], 3, axis=2))
    return np.rint(images).astype(np.uint8)


def coverage(shape: np.ndarray, pose: Pose) -> np.ndarray:
    """Return the fraction of each pixel that is covered by its shape, [N, SIZE, SIZE] in [0, 1].

    A pixel whose center is d pixels outside of the edge has a coverage of clip(1/2 - d, 0, 1),
    which antialiases the edge.

    Args:
      shape: Indices into `SHAPES`, [N].
      pose: Poses of the N shapes.
    """
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    dx = x - pose.center[:, 0, None, None]
    dy = y - pose.center[:, 1, None, None]
    radius = pose.radius[:, None, None]
    cos, sin = np.cos(pose.angle)[:, None, None], np.sin(pose.angle)[:, None, None]
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    covered = np.empty((len(shape), SIZE, SIZE))
    for index, distance in enumerate(SHAPES.values()):
        chosen = shape == index
        covered[chosen] = np.clip(0.5 - radius[chosen] * distance(u[chosen], v[chosen]), 0, 1)
    return covered


def draw(
    shape: np.ndarray, foreground: np.ndarray, background: np.ndarray, pose: Pose
) -> np.ndarray:
    """Draw one shape on each background.

    Args:
      shape: Indices into `SHAPES`, [N].
      foreground: Indices into `COLORS`, [N].
      background: Indices into `BACKGROUNDS`, [N].
      pose: Poses of the N shapes.

    Returns:
      uint8 [N, SIZE, SIZE, 3].
    """
    alpha = coverage(shape, pose)[..., None]
    color = np.array(list(COLORS.values()), float)[foreground][:, None, None, :]
    behind = background_images()[background].astype(float)
    return np.rint(alpha * color + (1 - alpha) * behind).astype(np.uint8)


def make_split(split: str, seed: int = SEED, chunk: int = 1000) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (mode, image uint8 [SIZE, SIZE, 3]), cycling through the modes `PER_MODE[split]` times.

    Poses come from a counter-based generator keyed by (seed, split), so they do not depend on the
    machine.
    """
    key = np.array([seed, list(PER_MODE).index(split)], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    modes = np.tile(np.arange(NUM_MODES), PER_MODE[split])
    for start in range(0, len(modes), chunk):
        batch = modes[start : start + chunk]
        yield from zip(batch, draw(*split_mode(batch), random_pose(len(batch), rng)), strict=True)


class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder; `label` is the mode (0 to 999), and the other labels are its components."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS's own convention)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                'One shape on one background: 10 shapes x 10 colors x 10 backgrounds, i.e. 1,000 '
                'equally frequent modes.'
            ),
            features=tfds.features.FeaturesDict(
                {
                    'id': tfds.features.Text(),
                    'image': tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format='png'),
                    'label': tfds.features.ClassLabel(num_classes=NUM_MODES),
                    'shape': tfds.features.ClassLabel(names=list(SHAPES)),
                    'foreground': tfds.features.ClassLabel(names=list(COLORS)),
                    'background': tfds.features.ClassLabel(names=list(BACKGROUNDS)),
                }
            ),
            supervised_keys=('image', 'label'),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in PER_MODE}

    def _generate_examples(self, split):
        # TFDS orders the records by a hash of their keys, which shuffles the modes.
        for index, (mode, image) in enumerate(make_split(split)):
            shape, foreground, background = split_mode(mode)
            yield (
                index,
                {
                    'id': f'{split}_{index:05d}',
                    'image': PIL.Image.fromarray(image),  # TFDS encodes arrays with TensorFlow.
                    'label': int(mode),
                    'shape': int(shape),
                    'foreground': int(foreground),
                    'background': int(background),
                },
            )

"""Poisson blending compared to a sparse direct solver in float64."""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from dcgan_jax.tasks import poisson_blending


def solve(known, hole, guide):
    """Blend one channel: gradients of `guide` in the hole, values of `known` elsewhere."""
    height, width = known.shape
    number = np.arange(height * width).reshape(height, width)
    edges = [
        *zip(number[:, 1:].ravel(), number[:, :-1].ravel(), strict=True),
        *zip(number[1:].ravel(), number[:-1].ravel(), strict=True),
    ]
    gradient = scipy.sparse.lil_matrix((len(edges), height * width))
    for row, (a, b) in enumerate(edges):
        gradient[row, a], gradient[row, b] = 1, -1
    gradient = gradient.tocsc()
    inside = hole.ravel().astype(bool)
    wanted = gradient @ guide.ravel() - gradient[:, ~inside] @ known.ravel()[~inside]
    free = gradient[:, inside]
    result = known.ravel().copy()
    result[inside] = scipy.sparse.linalg.spsolve((free.T @ free).tocsc(), free.T @ wanted)
    return result.reshape(height, width)


def test_blend_equals_the_least_squares_solution():
    rng = np.random.default_rng(0)
    known = rng.uniform(-0.3, 0.3, (3, 9, 8, 2))
    guide = rng.uniform(-0.3, 0.3, (3, 9, 8, 2))
    holes = np.zeros((3, 9, 8, 1))
    holes[0, 2:6, 3:7] = 1
    holes[1, :, 4:] = 1  # Extends to the borders.
    holes[2] = rng.uniform(size=(9, 8, 1)) < 0.6
    got = poisson_blending.blend(
        known.astype(np.float32), holes.astype(np.float32), guide.astype(np.float32)
    )
    for image in range(3):
        for channel in range(2):
            expected = solve(
                known[image, ..., channel], holes[image, ..., 0], guide[image, ..., channel]
            )
            np.testing.assert_allclose(
                got[image, ..., channel], np.clip(expected, -1, 1), atol=1e-4
            )


def test_constant_offset_of_the_guide_has_no_effect():
    ramp = np.broadcast_to(np.linspace(-0.5, 0.5, 8, dtype=np.float32)[None, :, None], (8, 8, 1))
    holes = np.zeros((1, 8, 8, 1), np.float32)
    holes[0, 2:6, 2:6] = 1
    got = poisson_blending.blend(ramp[None], holes, ramp[None] + 0.3)
    np.testing.assert_allclose(got[0], ramp, atol=1e-4)

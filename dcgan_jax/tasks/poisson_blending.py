"""Poisson blending (Pérez et al. 2003): a hole filled with another image's gradients."""

import jax
import jax.numpy as jnp

_TOLERANCE = 1e-5
_ITERATIONS = 500


@jax.jit
def blend(known: jax.Array, holes: jax.Array, guide: jax.Array) -> jax.Array:
    """Images that equal `known` outside the holes and have the gradients of `guide` in them.

    They minimize the squared difference of gradients (Yeh et al. 2017, arXiv:1607.07539, eq. 9):
    a linear system that conjugate gradients solve for all images at once.

    Args:
        known: float32 `[B, H, W, C]`; what it has in the holes doesn't matter.
        holes: `[B, H, W, 1]` of 0 and 1.
        guide: `[B, H, W, C]`.

    Returns:
        `[B, H, W, C]`, in [-1, 1].
    """
    outside = known * (1.0 - holes)
    wanted = holes * (_laplacian(guide) - _laplacian(outside))
    filled, _ = jax.scipy.sparse.linalg.cg(
        lambda x: holes * _laplacian(holes * x),
        wanted,
        x0=holes * guide,
        tol=_TOLERANCE,
        maxiter=_ITERATIONS,
    )
    return jnp.clip(outside + holes * filled, -1.0, 1.0)


def _laplacian(x: jax.Array) -> jax.Array:
    """Each pixel's sum of differences to its neighbours within the image, `[B, H, W, C]`."""
    total = jnp.zeros_like(x)
    for axis in (1, 2):
        steps = jnp.diff(x, axis=axis)
        before, after = [(0, 0)] * 4, [(0, 0)] * 4
        before[axis], after[axis] = (1, 0), (0, 1)
        total += jnp.pad(steps, before) - jnp.pad(steps, after)
    return total

"""Poisson blending (Pérez et al. 2003)."""

import jax
import jax.numpy as jnp

_TOLERANCE = 1e-5
_ITERATIONS = 500


@jax.jit
def blend(known: jax.Array, holes: jax.Array, guide: jax.Array) -> jax.Array:
    """Fill holes with an image whose gradients are those of `guide`.

    The result minimizes the squared difference of gradients (Yeh et al. 2017, arXiv:1607.07539, eq.
    9). The linear system is solved by conjugate gradients for the whole batch at once.

    Args:
        known: Images to complete, float32 `[B, H, W, C]`; values in the holes are ignored.
        holes: Mask, `[B, H, W, 1]`: 1 in the holes, else 0.
        guide: Images that provide the gradients, `[B, H, W, C]`.

    Returns:
        Blended images in [-1, 1], `[B, H, W, C]`; equal to `known` outside the holes.
    """
    outside = known * (1.0 - holes)
    target = holes * (_laplacian(guide) - _laplacian(outside))
    filled, _ = jax.scipy.sparse.linalg.cg(
        lambda x: holes * _laplacian(holes * x),
        target,
        x0=holes * guide,
        tol=_TOLERANCE,
        maxiter=_ITERATIONS,
    )
    return jnp.clip(outside + holes * filled, -1.0, 1.0)


def _laplacian(x: jax.Array) -> jax.Array:
    """Sum the differences of each pixel to its neighbors within the image, `[B, H, W, C]`."""
    total = jnp.zeros_like(x)
    for axis in (1, 2):
        differences = jnp.diff(x, axis=axis)
        before, after = [(0, 0)] * 4, [(0, 0)] * 4
        before[axis], after[axis] = (1, 0), (0, 1)
        total += jnp.pad(differences, before) - jnp.pad(differences, after)
    return total

"""Features of the real images that samples are compared with, computed once and cached."""

import hashlib
import io
import json
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from tqdm import tqdm

from dcgan_jax.data.image_source import ImageSource
from dcgan_jax.metrics.extractors import Extractor
from dcgan_jax.metrics.features import check
from dcgan_jax.metrics.statistics import Moments, Statistics
from dcgan_jax.runtime import cache_dir, multihost
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import read_npz, resolve_path, write_atomic

# Statistics of other extractors are read up to this dimension, so that the error can name them.
_MAX_DIMENSION = 4096


class Reference(NamedTuple):
    """Features of real images.

    Attributes:
        statistics: Statistics of the whole split, or None if not requested.
        features: Features of N images of the split, float32 `[N, D]`.
    """

    statistics: Statistics | None
    features: np.ndarray


def compute_reference(
    source: ImageSource, extractor: Extractor, num_features: int, with_statistics: bool = True
) -> Reference:
    """Compute statistics and features of a split, or read them from the cache.

    Args:
        source: The split.
        extractor: The extractor.
        num_features: Number of evenly spaced images of the split whose features are kept.
        with_statistics: Whether to compute statistics of all images of the split as well.

    Raises:
        UserError: If the files of the split change while they are read.
    """
    num_features = min(num_features, len(source))
    kept = np.arange(num_features) * len(source) // num_features
    description = {
        'data_set': source.name,
        'split': source.split,
        # Data sets of the same name and version may differ, e.g. CIFAR-10 stored as JPEG.
        'sha256': source.digest,
        'image_shape': list(source.image_shape),
        **source.read_settings,
        'extractor': extractor.name,
        'extractor_sha256': extractor.sha256,
        'resize': extractor.resize,
        'images': len(source),
        'has_statistics': with_statistics,
        'features': num_features,
    }
    key = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
    stem = f'{source.name}_{source.split}_{extractor.name}_{key}'
    path = cache_dir.folder() / 'reference' / f'{"".join(map(_safe, stem))}.npz'
    cached = _read(path, description, extractor.dimension)
    if not multihost.all_true(cached is not None):  # Either all processes compute, or none.
        cached = _compute(source, extractor, kept, with_statistics)
        if not multihost.all_true(source.compute_digest() == source.digest):
            raise UserError(
                f'the files of {source.name} were changed while they were read: try again'
            )
        _write(path, description, cached)
    return cached


def read_statistics(path: epath.PathLike, extractor: Extractor) -> Statistics:
    """Read statistics from a user-supplied file.

    Args:
        path: npz file with `mu` [D], `sigma` [D, D], `n`, and the `extractor_sha256` of the
            extractor with which the statistics were computed.
        extractor: The extractor in use.

    Raises:
        UserError: If the file cannot be read, or was computed with a different extractor.
    """
    name = f'config.evaluation.reference={path}'
    path = resolve_path(path, 'config.evaluation.reference')
    try:
        arrays = read_npz(path, _max_bytes(max(extractor.dimension, _MAX_DIMENSION)))
        mu, sigma = (arrays[key].astype(np.float64) for key in ('mu', 'sigma'))
        n, sha256 = int(arrays['n']), str(arrays['extractor_sha256'])
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(
            f'{name} cannot be read ({type(error).__name__}: {error}): use an npz file with mu, '
            'sigma, n and extractor_sha256'
        ) from error
    if sha256 != extractor.sha256:
        raise UserError(
            f'{name} was computed with an extractor of SHA-256 {sha256[:16]}, not {extractor.name} '
            f'({extractor.sha256[:16]}): use the same extractor, or another reference'
        )
    size = extractor.dimension
    if (mu.shape, sigma.shape) != ((size,), (size, size)) or n < 2:
        raise UserError(
            f'{name} has mu {mu.shape}, sigma {sigma.shape}, n {n}: D must be {size}, n at '
            'least 2; compute it again'
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f'{name} has values that are not finite: compute it again')
    eigenvalues = np.linalg.eigvalsh(sigma)
    tolerance = 1e-5 * eigenvalues[-1]
    if not np.allclose(sigma, sigma.T, atol=tolerance) or eigenvalues[0] < -tolerance:
        raise UserError(
            f'{name}: its sigma is not a covariance (not symmetric, or with negative eigenvalues): '
            'compute it again'
        )
    return Statistics(mu, sigma, n)


def _max_bytes(dimension: int, features: int = 0) -> int:
    """Return the largest accepted size in bytes of a file of statistics and feature vectors."""
    return 8 * dimension * (dimension + 1) + 4 * features * dimension + 2**20


def _compute(
    source: ImageSource, extractor: Extractor, kept: np.ndarray, with_statistics: bool
) -> Reference:
    indices = np.arange(len(source)) if with_statistics else kept
    row_of = np.full(len(source), -1)
    row_of[kept] = np.arange(len(kept))
    features = np.empty((len(kept), extractor.dimension), np.float32)
    moments = Moments()
    description = f'Features of {source.name} {source.split} (once)'
    with tqdm(total=len(indices), desc=description, unit='image', disable=None) as bar:
        for start in range(0, len(indices), extractor.preferred_batch_size):
            batch = indices[start : start + extractor.preferred_batch_size]
            extracted, _ = extractor(source.read(batch).images)
            if with_statistics:
                check(extracted, minimum=1, name=f'features of {source.name}')
            moments.add(extracted)
            rows = row_of[batch]
            features[rows[rows >= 0]] = extracted[rows >= 0]
            bar.update(len(batch))
    return Reference(moments.statistics() if with_statistics else None, features)


def _read(path: epath.Path, description: dict, dimension: int) -> Reference | None:
    """Read a cached reference; return None if it does not exist or is damaged."""
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, _max_bytes(dimension, description['features']))
        stored = json.loads(str(arrays['description']))
        features = arrays['features']
        statistics = None
        if description['has_statistics']:
            statistics = Statistics(arrays['mu'], arrays['sigma'], int(arrays['n']))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        logging.warning('%s is damaged (%s): computing it again', path, error)
        return None
    valid = stored == description and features.shape == (description['features'], dimension)
    if valid and statistics:
        shapes = statistics.mu.shape, statistics.sigma.shape
        valid = shapes == ((dimension,), (dimension, dimension))
    if not valid:
        logging.warning('%s has unexpected content: computing it again', path)
        return None
    return Reference(statistics, features)


def _write(path: epath.Path, description: dict, reference: Reference) -> None:
    """Cache a reference; failures are only logged."""
    arrays = io.BytesIO()
    np.savez(
        arrays,
        description=json.dumps(description),
        features=reference.features,
        **(reference.statistics._asdict() if reference.statistics else {}),
    )
    try:
        write_atomic(path, arrays.getvalue())
    except OSError as error:
        logging.warning('%s cannot be written (%s): the reference is not cached', path, error)


def _safe(character: str) -> str:
    return character if character.isalnum() or character in '._-' else '_'

"""What samples are compared with: features of a data set's images, computed once and kept."""

import hashlib
import io
import json
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from tqdm import tqdm

from dcgan_jax.data.sources import ImageSource
from dcgan_jax.metrics.extractors import Extractor
from dcgan_jax.metrics.features import check
from dcgan_jax.metrics.frechet import Moments, Statistics
from dcgan_jax.runtime import cache_dir, multihost
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import read_npz, resolve_path, write_atomic

_LARGEST = 4096  # features that files of another extractor may have, to be told so


class Reference(NamedTuple):
    """Features of real images.

    Attributes:
        statistics: of the whole split; None where only features were asked for.
        features: float32 `[N, D]` of N of them.
    """

    statistics: Statistics | None
    features: np.ndarray


def compute_reference(
    source: ImageSource, extractor: Extractor, num_features: int, whole: bool = True
) -> Reference:
    """Statistics and features of a split, from the cache where they are there.

    Args:
        source: the split.
        extractor: of the features.
        num_features: how many features are kept, of images spread evenly over the split.
        whole: take the statistics of all images of the split too.
    """
    num_features = min(num_features, len(source))
    kept = np.arange(num_features) * len(source) // num_features
    described = {
        'data set': source.name,
        'split': source.split,
        # Data sets of one name and version differ: CIFAR-10 lossless and as JPEG, say.
        'fingerprint': fingerprint(source),
        'extractor': extractor.name,
        'extractor_sha256': extractor.sha256,
        'resize': extractor.resize,
        'images': len(source),
        'whole': whole,
        'features': num_features,
    }
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    stem = f'{source.name}_{source.split}_{extractor.name}_{key}'
    path = cache_dir.folder() / 'reference' / f'{"".join(map(_safe, stem))}.npz'
    cached = _read(path, described, extractor.dimension)
    if not multihost.all_true(cached is not None):  # All compute, or none does.
        cached = _compute(source, extractor, kept, whole)
        _write(path, described, cached)
    return cached


def read_statistics(path: epath.PathLike, extractor: Extractor) -> Statistics:
    """Reads a user's file of statistics.

    Args:
        path: npz with `mu` [D], `sigma` [D, D], `n`, and `extractor_sha256` of the extractor that
            they come from.
        extractor: the one in use.

    Raises:
        UserError: the file can't be read, or its statistics come from another extractor.
    """
    what = f'config.evaluation.reference={path}'
    path = resolve_path(path, 'config.evaluation.reference')
    try:
        arrays = read_npz(path, _most_bytes(max(extractor.dimension, _LARGEST)))
        mu, sigma = (arrays[name].astype(np.float64) for name in ('mu', 'sigma'))
        n, sha256 = int(arrays['n']), str(arrays['extractor_sha256'])
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(
            f'{what} can not be read ({type(error).__name__}: {error}): give an npz file with mu, '
            'sigma, n and extractor_sha256'
        ) from error
    if sha256 != extractor.sha256:
        raise UserError(
            f'{what} was made with an extractor of SHA-256 {sha256[:16]}, not {extractor.name} '
            f'({extractor.sha256[:16]}): give the same extractor, or another reference'
        )
    size = extractor.dimension
    if (mu.shape, sigma.shape) != ((size,), (size, size)) or n < 2:
        raise UserError(f'{what} has mu {mu.shape}, sigma {sigma.shape}, n {n}: D must be {size}')
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f'{what} has numbers that are not finite: make it anew')
    spread = np.linalg.eigvalsh(sigma)  # of one triangle
    if not np.allclose(sigma, sigma.T, atol=1e-5 * spread[-1]) or spread[0] < -1e-5 * spread[-1]:
        raise UserError(
            f'{what}: its sigma is no covariance (not symmetric, or with negative variances): make '
            'it anew'
        )
    return Statistics(mu, sigma, n)


def _most_bytes(dimension: int, features: int = 0) -> int:
    """Of a file of statistics and of so many features."""
    return 8 * dimension * (dimension + 1) + 4 * features * dimension + 2**20


def _compute(source: ImageSource, extractor: Extractor, kept: np.ndarray, whole: bool) -> Reference:
    indices = np.arange(len(source)) if whole else kept
    row_of = np.full(len(source), -1)
    row_of[kept] = np.arange(len(kept))
    features = np.empty((len(kept), extractor.dimension), np.float32)
    moments = Moments()
    description = f'Features of {source.name} {source.split}, once'
    with tqdm(total=len(indices), desc=description, unit='image', disable=None) as bar:
        for start in range(0, len(indices), extractor.preferred_batch_size):
            piece = indices[start : start + extractor.preferred_batch_size]
            extracted, _ = extractor(source.read(piece).images)
            if whole:
                check(extracted, least=1, what=f'features of {source.name}')
            moments.add(extracted)
            rows = row_of[piece]
            features[rows[rows >= 0]] = extracted[rows >= 0]
            bar.update(len(piece))
    return Reference(moments.statistics() if whole else None, features)


def _read(path: epath.Path, described: dict, dimension: int) -> Reference | None:
    """A cached reference, or None if it isn't there or is damaged."""
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, _most_bytes(dimension, described['features']))
        found = json.loads(str(arrays['described']))
        features = arrays['features']
        statistics = None
        if described['whole']:
            statistics = Statistics(arrays['mu'], arrays['sigma'], int(arrays['n']))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        logging.warning('%s is damaged (%s) and computed anew', path, error)
        return None
    good = found == described and features.shape == (described['features'], dimension)
    if good and statistics:
        shapes = statistics.mu.shape, statistics.sigma.shape
        good = shapes == ((dimension,), (dimension, dimension))
    if not good:
        logging.warning('%s holds something else and is computed anew', path)
        return None
    return Reference(statistics, features)


def _write(path: epath.Path, described: dict, reference: Reference) -> None:
    """Keeps a reference; one that can't be kept is used all the same."""
    arrays = io.BytesIO()
    np.savez(
        arrays,
        described=json.dumps(described),
        features=reference.features,
        **(reference.statistics._asdict() if reference.statistics else {}),
    )
    try:
        write_atomic(path, arrays.getvalue())
    except OSError as error:
        logging.warning('%s can not be written (%s): it is computed anew next time', path, error)


def fingerprint(source: ImageSource) -> str:
    """A hash of some images, spread over the split: sets of one name and version differ."""
    indices = np.unique(np.linspace(0, len(source) - 1, 64).astype(int))
    return hashlib.sha256(source.read(indices).images.tobytes()).hexdigest()[:16]


def _safe(character: str) -> str:
    return character if character.isalnum() or character in '._-' else '_'

"""Extractors of features and logits: Inception, or a program serialized by `jax.export`."""

import concurrent.futures
import functools
import hashlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from dcgan_jax.metrics import inception
from dcgan_jax.runtime import sharding
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import is_regular_file, resolve_path

# Maps variables and images, uint8 [b, H, W, 3], to features, float32 [b, D], and logits, float32
# [b, K].
ExtractorFunction = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]

INCEPTIONS = tuple(inception.RESIZES)
# Number of batches processed concurrently on a CPU; one would leave a second core mostly idle.
_CPU_BATCHES = 2


class Labels(NamedTuple):
    """Display names of results; only the extractor 'inception' uses 'FID' without a suffix."""

    frechet_distance: str
    kernel_distance: str
    inception_score: str


class Extractor:
    """Maps images to features and logits in fixed-size batches.

    Attributes:
        name: 'inception', 'inception_pytorch_fid', or the stem of the program's file name.
        labels: Display names of results.
        sha256: SHA-256 of the file of the weights or of the program.
        resize: Description of the preprocessing, for protocols.
        dimension: Number of features.
    """

    def __init__(
        self,
        function: ExtractorFunction,
        variables: Any,
        *,
        name: str,
        labels: Labels,
        sha256: str,
        resize: str,
        batch_size: int,
        size: tuple[int, int] | None = None,
    ):
        """Wrap a function, which is compiled at the first call.

        Args:
            function: See `ExtractorFunction`.
            variables: First argument of the function, a pytree of arrays.
            name: Name of the extractor, for protocols and file names.
            labels: Display names of results.
            sha256: SHA-256 of the file of the weights or of the program.
            resize: Description of the preprocessing, for protocols.
            batch_size: Images per compiled call on each device.
            size: Required (H, W) of the images, or None if any size is supported.
        """
        self.name, self.labels, self.sha256, self.resize = name, labels, sha256, resize
        mesh = sharding.create_mesh()
        # With sharding alone, a serialized program would process the full batch on every device.
        sharded = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(sharding.REPLICATED, sharding.SHARDED),
            out_specs=sharding.SHARDED,
        )
        replicated, self._sharding = sharding.replicated(mesh), sharding.sharded(mesh)
        self._function = jax.jit(sharded, out_shardings=replicated)
        self._variables = jax.device_put(variables, replicated)
        self._batch_size = batch_size * mesh.size
        cores = os.cpu_count() if jax.default_backend() == 'cpu' else 1
        # Programs on several devices must run in the same order on all of them.
        self._batches = _CPU_BATCHES if mesh.size == 1 and cores > 1 else 1
        self._size = size
        example = jax.ShapeDtypeStruct((self._batch_size, *(size or (32, 32)), 3), np.uint8)
        self.dimension, self._classes = (
            out.shape[1] for out in jax.eval_shape(self._function, variables, example)
        )
        self._warned_grayscale = False

    @property
    def preferred_batch_size(self) -> int:
        """The most efficient number of images per call; other numbers are also supported."""
        return self._batches * self._batch_size

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise `UserError` if images of shape (H, W, C) are not supported."""
        if self._size and shape[:2] != self._size:
            raise UserError(
                f'extractor {self.name} takes images of {self._size[0]}x{self._size[1]} pixels, '
                f'not {shape[0]}x{shape[1]}: use another config.evaluation.extractor'
            )
        if shape[2] not in (1, 3):
            raise UserError(
                f'extractor {self.name} takes RGB or grayscale images, not {shape[2]} channels'
            )

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Extract features and logits; the results of an image do not depend on other images.

        Args:
            images: RGB or grayscale images, uint8 `[N, H, W, 3]` or `[N, H, W, 1]`.

        Returns:
            Features, float32 `[N, D]`, and logits, float32 `[N, K]`.

        Raises:
            UserError: See `check`.
        """
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f'uint8 [N, H, W, C] expected, got {images.dtype} {images.shape}')
        self.check(images.shape[1:])
        if images.shape[3] == 1:
            if not self._warned_grayscale:
                logging.info('extractor %s: converting grayscale images to RGB', self.name)
                self._warned_grayscale = True
            images = np.repeat(images, 3, axis=3)
        starts = range(0, len(images), self._batch_size)
        batches = [images[start : start + self._batch_size] for start in starts]
        with concurrent.futures.ThreadPoolExecutor(self._batches) as threads:
            results = list(threads.map(self._extract_batch, batches))
        features = [np.empty((0, self.dimension), np.float32), *(pair[0] for pair in results)]
        logits = [np.empty((0, self._classes), np.float32), *(pair[1] for pair in results)]
        return np.concatenate(features), np.concatenate(logits)

    def _extract_batch(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pad a batch to the compiled size and extract its features and logits."""
        padded = np.zeros((self._batch_size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        placed = sharding.place(padded, self._sharding)
        features, logits = jax.device_get(self._function(self._variables, placed))
        return features[: len(images)], logits[: len(images)]


def load(name_or_path: epath.PathLike, weights: str = '', batch_size: int = 16) -> Extractor:
    """Load an extractor.

    A serialized program is executed, so only load files from trusted sources.

    Args:
        name_or_path: 'inception', 'inception_pytorch_fid', or the path of a program serialized by
            `jax.export` with the signature of `ExtractorFunction` without variables; H and W may be
            fixed or symbolic.
        weights: File of Inception's weights; '' downloads the published weights once.
        batch_size: Images per compiled call on each device.

    Raises:
        UserError: If there is no such extractor, its file is invalid, or the download fails.
    """
    if name_or_path in INCEPTIONS:
        return _load_inception(name_or_path, weights, batch_size)
    path = resolve_path(name_or_path, 'config.evaluation.extractor')
    if not is_regular_file(path):
        raise UserError(
            f'config.evaluation.extractor={os.fspath(name_or_path)} is neither one of '
            f'{", ".join(INCEPTIONS)} nor a file (serialized by jax.export): correct the path'
        )
    return _load_artifact(path, batch_size)


def _load_inception(name: str, weights: str, batch_size: int) -> Extractor:
    variables, sha256 = inception.load_weights(weights)
    suffix = '' if name == 'inception' else ' (pytorch-fid)'
    return Extractor(
        functools.partial(inception.apply, name=name),
        variables,
        name=name,
        labels=Labels(*(f'{short}{suffix}' for short in ('FID', 'KID', 'IS'))),
        sha256=sha256,
        resize=inception.RESIZES[name],
        batch_size=batch_size,
    )


# Raised by JAX for inconsistent programs; XLA's errors are RuntimeErrors.
_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AssertionError)


def _load_artifact(path: epath.Path, batch_size: int) -> Extractor:
    from jax import export

    content = path.read_bytes()
    try:
        exported = export.deserialize(bytearray(content))
    except ImportError as error:
        raise UserError(
            f'{path} needs the package flatbuffers: pip install -r requirements.txt'
        ) from error
    except Exception as error:  # flatbuffers does not validate files.
        raise UserError(
            f'config.evaluation.extractor={path} is damaged, or not a file serialized by '
            'jax.export: use another file'
        ) from error
    _check_signature(path, exported)
    if jax.default_backend() not in _backends(exported.platforms):
        raise UserError(
            f'{path} was exported for {", ".join(exported.platforms)}, not for '
            f'{jax.default_backend()}: export it for that platform as well'
        )
    height, width = exported.in_avals[0].shape[1:3]
    fixed = isinstance(height, int) and isinstance(width, int)
    try:
        extractor = Extractor(
            lambda _, images: exported.call(images),
            (),
            name=path.stem,
            labels=Labels(*(f'{short} ({path.stem})' for short in ('FD', 'KD', 'IS'))),
            sha256=hashlib.sha256(content).hexdigest(),
            resize='as in the artifact',
            batch_size=batch_size,
            size=(height, width) if fixed else None,
        )
        # The program is compiled and run once, so that damage is detected now.
        example = np.zeros((1, *((height, width) if fixed else (32, 32)), 3), np.uint8)
        outputs = extractor(example)
    except _FAILURES as error:
        reason = next(iter(str(error).splitlines()), '')[:200]
        raise UserError(
            f'config.evaluation.extractor={path} does not run ({type(error).__name__}: {reason}): '
            'export it again'
        ) from error
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError(
            f'config.evaluation.extractor={path} returns features or logits that are not finite '
            'for a black image: its weights are damaged, export it again'
        )
    return extractor


def _backends(platforms: tuple[str, ...]) -> set[str]:
    """Return the names of `jax.default_backend` for the platforms of `jax.export`."""
    return {{'cuda': 'gpu', 'rocm': 'gpu'}.get(platform, platform) for platform in platforms}


def _check_signature(path: epath.Path, exported: jax.export.Exported) -> None:
    """Raise `UserError` unless a program is an `ExtractorFunction` with a symbolic batch size."""

    def describe(avals: tuple[jax.core.ShapedArray, ...]) -> str:
        return ', '.join(f'{a.dtype}[{",".join(map(str, a.shape))}]' for a in avals)

    ins, outs = exported.in_avals, exported.out_avals
    valid = (
        len(ins) == 1
        and len(outs) == 2
        and exported.out_tree == jax.tree.structure((0, 0))
        and (ins[0].dtype, ins[0].ndim) == (jnp.uint8, 4)
        and ins[0].shape[3] == 3
        and not isinstance(ins[0].shape[0], int)
        and all((out.dtype, out.ndim) == (jnp.float32, 2) for out in outs)
        and all(out.shape[0] == ins[0].shape[0] for out in outs)
        and all(isinstance(out.shape[1], int) for out in outs)
    )
    if not valid:
        raise UserError(
            f'config.evaluation.extractor={path} maps {describe(ins)} to {describe(outs)}; it must '
            'map uint8[b,H,W,3] to features float32[b,D] and logits float32[b,K] for any b'
        )

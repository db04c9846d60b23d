"""Feature extractors: images to features and logits, by name or from a `jax.export` artifact."""

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
from dcgan_jax.runtime.files import resolve_path

# Variables, uint8 [b, H, W, 3] -> features float32 [b, D], logits float32 [b, K].
Function = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]

INCEPTIONS = tuple(inception.RESIZES)
_CPU_BATCHES = 2  # computed at once by one device: one leaves most of a second core idle


class Labels(NamedTuple):
    """What figures may be called: FID is the name of one extractor's Fréchet distance only."""

    frechet_distance: str
    kernel_distance: str
    inception_score: str


class Extractor:
    """Maps images to features and logits, in batches of one compiled size.

    Attributes:
        name: 'inception', 'inception_pytorch_fid', or an artifact's file stem.
        labels: the figures' names.
        sha256: of the weights or the artifact.
        resize: how images become the network's input, for protocols.
        dimension: of a feature.
    """

    def __init__(
        self,
        function: Function,
        variables: Any,
        *,
        name: str,
        labels: Labels,
        sha256: str,
        resize: str,
        batch_size: int,
        size: tuple[int, int] | None = None,
    ):
        """Wraps a function, which is compiled at the first call.

        Args:
            function: see `Function`.
            variables: its first argument, arrays.
            name: see above.
            labels: see above.
            sha256: see above.
            resize: see above.
            batch_size: images a compiled call, on each device.
            size: (H, W) of the images, None for any.
        """
        self.name, self.labels, self.sha256, self.resize = name, labels, sha256, resize
        mesh = sharding.create_mesh()
        # Not by sharding alone: a serialized program would run whole on every device.
        divided = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(sharding.REPLICATED, sharding.SHARDED),
            out_specs=sharding.SHARDED,
        )
        everywhere, self._divided = sharding.replicated(mesh), sharding.sharded(mesh)
        self._function = jax.jit(divided, out_shardings=everywhere)
        self._variables = jax.device_put(variables, everywhere)
        self._batch_size = batch_size * mesh.size
        cores = os.cpu_count() if jax.default_backend() == 'cpu' else 1
        # Programs over several devices must not overtake each other.
        self._batches = _CPU_BATCHES if mesh.size == 1 and cores > 1 else 1
        self._size = size
        example = jax.ShapeDtypeStruct((self._batch_size, *(size or (32, 32)), 3), np.uint8)
        self.dimension, self._classes = (
            out.shape[1] for out in jax.eval_shape(self._function, variables, example)
        )
        self._told_of_gray = False

    @property
    def preferred_batch_size(self) -> int:
        """Images that a call takes with the least waste; it takes any other number too."""
        return self._batches * self._batch_size

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuses images whose (H, W, C) it can't take.

        Raises:
            UserError: they have another size, or neither one nor three channels.
        """
        if self._size and shape[:2] != self._size:
            raise UserError(
                f'extractor {self.name} takes images of {self._size[0]}x{self._size[1]} pixels, '
                f'these have {shape[0]}x{shape[1]}: choose another config.evaluation.extractor'
            )
        if shape[2] not in (1, 3):
            raise UserError(f'extractor {self.name} takes RGB or gray images, not {shape[2]} bands')

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Extracts features and logits; an image's do not depend on the others.

        Args:
            images: uint8 `[N, H, W, 3]`, or gray `[N, H, W, 1]`, whose RGB values are equal.

        Returns:
            features float32 `[N, D]`, logits float32 `[N, K]`.

        Raises:
            UserError: see `check`.
        """
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f'uint8 [N, H, W, C] expected, got {images.dtype} {images.shape}')
        self.check(images.shape[1:])
        if images.shape[3] == 1:
            if not self._told_of_gray:
                logging.info('extractor %s: gray images are taken as RGB', self.name)
                self._told_of_gray = True
            images = np.repeat(images, 3, axis=3)
        starts = range(0, len(images), self._batch_size)
        batches = [images[start : start + self._batch_size] for start in starts]
        with concurrent.futures.ThreadPoolExecutor(self._batches) as threads:
            results = list(threads.map(self._batch, batches))
        features = [np.empty((0, self.dimension), np.float32), *(pair[0] for pair in results)]
        logits = [np.empty((0, self._classes), np.float32), *(pair[1] for pair in results)]
        return np.concatenate(features), np.concatenate(logits)

    def _batch(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pads one batch to the compiled size."""
        padded = np.zeros((self._batch_size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        placed = sharding.place(padded, self._divided)
        features, logits = jax.device_get(self._function(self._variables, placed))
        return features[: len(images)], logits[: len(images)]


def load(name_or_path: epath.PathLike, weights: str = '', batch_size: int = 16) -> Extractor:
    """Makes an extractor.

    An artifact is a program that runs here: take it from those you trust only.

    Args:
        name_or_path: 'inception', 'inception_pytorch_fid', or a file that `jax.export` serialized,
            whose function maps uint8 [b, H, W, 3] as `Function` does, its H and W fixed or free.
        weights: file with Inception's weights; '' downloads the published ones once.
        batch_size: images a compiled call.

    Raises:
        UserError: there is no such extractor, its file can't be used, or the download failed.
    """
    if name_or_path in INCEPTIONS:
        return _load_inception(name_or_path, weights, batch_size)
    path = resolve_path(name_or_path, 'config.evaluation.extractor')
    if not path.is_file():
        raise UserError(
            f'config.evaluation.extractor={os.fspath(name_or_path)} is neither one of '
            f'{", ".join(INCEPTIONS)} nor a file (made by jax.export): correct it'
        )
    return _load_artifact(path, batch_size)


def _load_inception(name: str, weights: str, batch_size: int) -> Extractor:
    variables, sha256 = inception.load_weights(weights)
    whose = '' if name == 'inception' else ' (pytorch-fid)'
    return Extractor(
        functools.partial(inception.apply, name=name),
        variables,
        name=name,
        labels=Labels(*(f'{short}{whose}' for short in ('FID', 'KID', 'IS'))),
        sha256=sha256,
        resize=inception.RESIZES[name],
        batch_size=batch_size,
    )


# What JAX raises for programs that contradict themselves; XLA's own errors are RuntimeErrors.
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
    except Exception as error:  # flatbuffers checks nothing, so damage shows in any way
        raise UserError(
            f'config.evaluation.extractor={path} is damaged, or no file that jax.export '
            'serialized: give another'
        ) from error
    _check_signature(path, exported)
    if jax.default_backend() not in _backends(exported.platforms):
        raise UserError(
            f'{path} was exported for {", ".join(exported.platforms)}, not for '
            f'{jax.default_backend()}: export it for that too'
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
        # Damage to the program itself shows only when it is compiled: now, not after hours.
        example = np.zeros((1, *((height, width) if fixed else (32, 32)), 3), np.uint8)
        outputs = extractor(example)
    except _FAILURES as error:
        reason = next(iter(str(error).splitlines()), '')[:200]
        raise UserError(
            f'config.evaluation.extractor={path} does not run ({type(error).__name__}: {reason}): '
            'export it anew'
        ) from error
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError(
            f'config.evaluation.extractor={path} makes features or logits of a black image that '
            'are not finite: its weights are broken, export it anew'
        )
    return extractor


def _backends(platforms: tuple[str, ...]) -> set[str]:
    """`jax.export`'s names of platforms as `jax.default_backend` calls them."""
    return {{'cuda': 'gpu', 'rocm': 'gpu'}.get(platform, platform) for platform in platforms}


def _check_signature(path: epath.Path, exported: jax.export.Exported) -> None:
    """Refuses an artifact that is no `Function` or whose batch size is fixed."""

    def described(avals: tuple[jax.core.ShapedArray, ...]) -> str:
        return ', '.join(f'{a.dtype}[{",".join(map(str, a.shape))}]' for a in avals)

    ins, outs = exported.in_avals, exported.out_avals
    good = (
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
    if not good:
        raise UserError(
            f'config.evaluation.extractor={path} maps {described(ins)} to {described(outs)}; an '
            'extractor maps uint8[b,H,W,3] to float32[b,D] features and float32[b,K] logits, b free'
        )

"""The Inception network of the FID: TensorFlow's graph of 2015-12-05.

This is Inception v3 (Szegedy et al. 2015, arXiv:1512.00567) with 1,008 outputs and two differences,
which its PyTorch ports (pytorch-fid, torch-fidelity) also have: average pooling excludes the
padding, and the last block uses max pooling instead of average pooling. Layers are named as in
these ports.
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax.metrics import torch_weights
from dcgan_jax.runtime import cache_dir, download
from dcgan_jax.runtime.errors import UserError

URL = (
    'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
    'pt_inception-2015-12-05-6726825d.pth'
)
SHA256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'

SIZE = 299  # Height and width of the network's input.
FEATURES, CLASSES = 2048, 1008

RESIZES = {
    'inception': 'bilinear to 299x299 as in TensorFlow 1 (no half-pixel shift, no antialias), '
    '(x - 128) / 128',
    'inception_pytorch_fid': 'bilinear to 299x299 as in pytorch-fid (half-pixel centers, no '
    'antialias), 2 x / 255 - 1',
}


class ConvNorm(nn.Module):
    """Convolution, BatchNorm in evaluation mode, and ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    strides: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C] to [B, H', W', features]."""
        x = nn.Conv(
            self.features,
            self.kernel,
            self.strides,
            padding=[(pad, pad) for pad in self.padding],
            use_bias=False,
            precision=jax.lax.Precision.HIGHEST,
            name='conv',
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name='bn')(x))


def _same(features: int, kernel: tuple[int, int], name: str) -> ConvNorm:
    """Return a convolution that preserves height and width."""
    return ConvNorm(features, kernel, padding=(kernel[0] // 2, kernel[1] // 2), name=name)


def _chain(x: jax.Array, prefix: str, *layers: tuple[int, tuple[int, int]]) -> jax.Array:
    for number, (features, kernel) in enumerate(layers, start=1):
        x = _same(features, kernel, f'{prefix}_{number}')(x)
    return x


def _avg_pool(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=False)


def _downsample(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2))


class BlockA(nn.Module):
    """Block at 35x35."""

    pool_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, 35, 35, C] to [B, 35, 35, 224 + pool_features]."""
        one = _same(64, (1, 1), 'branch1x1')(x)
        five = _chain(x, 'branch5x5', (48, (1, 1)), (64, (5, 5)))
        double = _chain(x, 'branch3x3dbl', (64, (1, 1)), (96, (3, 3)), (96, (3, 3)))
        pool = _same(self.pool_features, (1, 1), 'branch_pool')(_avg_pool(x))
        return jnp.concatenate([one, five, double, pool], -1)


class BlockB(nn.Module):
    """Block from 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, 35, 35, 288] to [B, 17, 17, 768]."""
        three = ConvNorm(384, (3, 3), 2, name='branch3x3')(x)
        double = _chain(x, 'branch3x3dbl', (64, (1, 1)), (96, (3, 3)))
        double = ConvNorm(96, (3, 3), 2, name='branch3x3dbl_3')(double)
        return jnp.concatenate([three, double, _downsample(x)], -1)


class BlockC(nn.Module):
    """Block at 17x17."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, 17, 17, 768] to the same shape."""
        inner, row, column = self.inner, (1, 7), (7, 1)
        one = _same(192, (1, 1), 'branch1x1')(x)
        seven = _chain(x, 'branch7x7', (inner, (1, 1)), (inner, row), (192, column))
        double = _chain(
            x,
            'branch7x7dbl',
            (inner, (1, 1)), (inner, column), (inner, row), (inner, column), (192, row),
        )  # fmt: skip
        pool = _same(192, (1, 1), 'branch_pool')(_avg_pool(x))
        return jnp.concatenate([one, seven, double, pool], -1)


class BlockD(nn.Module):
    """Block from 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, 17, 17, 768] to [B, 8, 8, 1280]."""
        three = _chain(x, 'branch3x3', (192, (1, 1)))
        three = ConvNorm(320, (3, 3), 2, name='branch3x3_2')(three)
        seven = _chain(x, 'branch7x7x3', (192, (1, 1)), (192, (1, 7)), (192, (7, 1)))
        seven = ConvNorm(192, (3, 3), 2, name='branch7x7x3_4')(seven)
        return jnp.concatenate([three, seven, _downsample(x)], -1)


class BlockE(nn.Module):
    """Block at 8x8; the last one has max pooling."""

    last: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, 8, 8, C] to [B, 8, 8, 2048]."""
        one = _same(320, (1, 1), 'branch1x1')(x)
        three = _same(384, (1, 1), 'branch3x3_1')(x)
        double = _chain(x, 'branch3x3dbl', (448, (1, 1)), (384, (3, 3)))
        pooled = nn.max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1))) if self.last else _avg_pool(x)
        return jnp.concatenate(
            [
                one,
                _same(384, (1, 3), 'branch3x3_2a')(three),
                _same(384, (3, 1), 'branch3x3_2b')(three),
                _same(384, (1, 3), 'branch3x3dbl_3a')(double),
                _same(384, (3, 1), 'branch3x3dbl_3b')(double),
                _same(192, (1, 1), 'branch_pool')(pooled),
            ],
            -1,
        )


class Inception(nn.Module):
    """The Inception network; the logits have no bias, as in the Inception Score."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map images [B, 299, 299, 3] in about [-1, 1] to features [B, 2048], logits [B, 1008]."""
        x = ConvNorm(32, (3, 3), 2, name='Conv2d_1a_3x3')(x)
        x = ConvNorm(32, (3, 3), name='Conv2d_2a_3x3')(x)
        x = _downsample(_same(64, (3, 3), 'Conv2d_2b_3x3')(x))
        x = _same(80, (1, 1), 'Conv2d_3b_1x1')(x)
        x = _downsample(ConvNorm(192, (3, 3), name='Conv2d_4a_3x3')(x))
        for name, pool_features in (('Mixed_5b', 32), ('Mixed_5c', 64), ('Mixed_5d', 64)):
            x = BlockA(pool_features, name=name)(x)
        x = BlockB(name='Mixed_6a')(x)
        for name, inner in (
            ('Mixed_6b', 128), ('Mixed_6c', 160), ('Mixed_6d', 160), ('Mixed_6e', 192),
        ):  # fmt: skip
            x = BlockC(inner, name=name)(x)
        x = BlockD(name='Mixed_7a')(x)
        x = BlockE(last=False, name='Mixed_7b')(x)
        features = BlockE(last=True, name='Mixed_7c')(x).mean((1, 2))
        fc = nn.Dense(CLASSES, use_bias=False, precision=jax.lax.Precision.HIGHEST, name='fc')
        return features, fc(features)


def apply(variables: Any, images: jax.Array, name: str) -> tuple[jax.Array, jax.Array]:
    """Return features and logits of uint8 images `[B, H, W, 3]` for the extractor `name`."""
    x = resize(images.astype(jnp.float32), name)
    x = (x - 128) / 128 if name == 'inception' else 2 * (x / 255) - 1
    return Inception().apply(variables, x)


def resize(images: jax.Array, name: str) -> jax.Array:
    """Resize images, float32 `[B, H, W, C]`, to `[B, 299, 299, C]` for the extractor `name`."""
    for axis in (2, 1):
        before, after, weight = _source_pixels(images.shape[axis], name)
        low, high = (jnp.take(images, index, axis=axis) for index in (before, after))
        weight = np.expand_dims(weight, [other for other in range(4) if other != axis])
        images = low + (high - low) * weight
    return images


def _source_pixels(size: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two source pixels of each target pixel, and the weight of the second."""
    target = np.arange(SIZE, dtype=np.float32)
    scale = np.float32(size / SIZE)
    if name == 'inception':
        source = target * scale
    else:
        source = np.maximum((target + np.float32(0.5)) * scale - np.float32(0.5), 0)
    before = np.minimum(source.astype(int), size - 1)
    return before, np.minimum(before + 1, size - 1), source - before.astype(np.float32)


def load_weights(path: str) -> tuple[Any, str]:
    """Return the variables of `Inception`.

    Args:
        path: File of the published weights (`URL`); '' downloads it once.

    Returns:
        The variables, and the SHA-256 of the file.

    Raises:
        UserError: If the file cannot be read or downloaded, or its SHA-256 is not `SHA256`.
    """
    file = Path(path).expanduser() if path else published_weights()
    try:
        sha256 = download.sha256(file)
    except OSError as error:
        raise UserError(
            f'config.evaluation.inception_weights={path} cannot be read: {error}'
        ) from error
    if sha256 != SHA256:
        raise UserError(
            f'{file} has SHA-256 {sha256}, not {SHA256}: use {URL}, or export the network and set '
            'config.evaluation.extractor'
        )
    tensors = torch_weights.read(file)
    shapes = jax.eval_shape(
        lambda: Inception().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    )
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: _weight(tensors, [key.key for key in keys]), shapes
    ), sha256


def published_weights() -> Path:
    """Return the path of the published weights, after downloading them if needed."""
    path = Path(cache_dir.folder()) / URL.rsplit('/', 1)[-1]
    remedy = (
        f'try again, or put the file at {path}, or set config.evaluation.inception_weights to '
        'another file'
    )
    download.fetch(URL, path, SHA256, remedy)
    return path


_TORCH_NAMES = {
    'kernel': 'weight',
    'scale': 'weight',
    'bias': 'bias',
    'mean': 'running_mean',
    'var': 'running_var',
}


def _weight(tensors: dict[str, np.ndarray], keys: list[str]) -> np.ndarray:
    """Return one array; kernels are [out, in, ...] in PyTorch and [..., in, out] in Flax."""
    weight = tensors['.'.join([*keys[1:-1], _TORCH_NAMES[keys[-1]]])]
    return np.moveaxis(weight, (0, 1), (-1, -2)) if weight.ndim > 1 else weight

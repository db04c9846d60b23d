"""A test double of `captions.EMBEDDERS['minilm']`, which needs PyTorch.

Import this module before `dcgan_jax.configs`, which reads the names of the embedders.
"""

import zlib

import numpy as np

from dcgan_jax.data import captions

SIZE = 256


def embed(texts):
    """Return hashed, signed counts of character trigrams; similar spellings have close vectors."""
    vectors = np.zeros((len(texts), SIZE), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        words = f'  {" ".join(text.lower().split())}  '
        for start in range(len(words) - 2):
            code = zlib.crc32(words[start : start + 3].encode())
            vector[code % SIZE] += 1.0 if code >> 31 else -1.0
        vector /= max(np.linalg.norm(vector), 1e-6)
    return vectors


captions.EMBEDDERS['trigrams'] = captions.Embedder(SIZE, embed)

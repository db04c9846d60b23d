"""Variables of a network as a safetensors file."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util


def serialize(variables: Any, metadata: Mapping[str, Any]) -> bytes:
    """Serialize variables to safetensors.

    Args:
        variables: Nested dict of arrays by collection, e.g. 'params'; the name of a tensor is its
            path, e.g. 'params/conv_0/kernel'.
        metadata: JSON-serializable values by name, each stored as JSON.
    """
    tensors = {
        name: np.ascontiguousarray(value)
        for name, value in traverse_util.flatten_dict(variables, sep='/').items()
    }
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    return safetensors.numpy.save(tensors, texts)


def deserialize(content: bytes) -> tuple[Any, dict[str, Any]]:
    """Return the variables and the metadata of a file written by `serialize`.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        tensors = safetensors.numpy.load(content)
        # A safetensors file starts with the length of its JSON header, 8 bytes little-endian.
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], 'little')])
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    texts = header.get('__metadata__', {})
    metadata = {name: json.loads(text) for name, text in texts.items()}
    return traverse_util.unflatten_dict(tensors, sep='/'), metadata

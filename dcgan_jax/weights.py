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

    Returns:
        The content of the file; the same arguments give the same bytes.
    """
    tensors = {
        name: np.ascontiguousarray(value)
        for name, value in traverse_util.flatten_dict(variables, sep='/').items()
    }
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    return _sort_metadata(safetensors.numpy.save(tensors, texts))


def _sort_metadata(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which the library writes in random order."""
    header, tensors = _split(content)
    header['__metadata__'] = dict(sorted(header.get('__metadata__', {}).items()))
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)  # The format aligns the tensors to 8 bytes.
    return len(text).to_bytes(8, 'little') + text + tensors


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON header of a safetensors file, and the bytes of its tensors."""
    end = 8 + int.from_bytes(content[:8], 'little')  # The file starts with the header's length.
    return json.loads(content[8:end]), content[end:]


def deserialize(content: bytes) -> tuple[Any, dict[str, Any]]:
    """Return the variables and the metadata of a file written by `serialize`.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        tensors = safetensors.numpy.load(content)
        header, _ = _split(content)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    texts = header.get('__metadata__', {})
    metadata = {name: json.loads(text) for name, text in texts.items()}
    return traverse_util.unflatten_dict(tensors, sep='/'), metadata

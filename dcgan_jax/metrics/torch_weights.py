"""Reader of the PyTorch file with the Inception weights, without PyTorch.

The format is that of `torch.save` before version 1.6: five pickles (magic number, protocol, system,
state dict, order of the storages), then each storage as its number of elements and its values.
"""

import math
import pickle
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]


class _StateDict(dict):
    """Dictionary that allows attributes, which unpickling an `OrderedDict` sets."""


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, *unused: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape))


class _Unpickler(pickle.Unpickler):
    """Unpickler restricted to the globals that occur in a state dict."""

    _NAMES = {  # noqa: RUF012
        ('collections', 'OrderedDict'): _StateDict,
        ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
        ('torch', 'FloatStorage'): np.dtype('<f4'),
        ('torch', 'LongStorage'): np.dtype('<i8'),
    }

    def find_class(self, module: str, name: str) -> Any:
        return self._NAMES[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        return _Storage(key, dtype)


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict.

    The tensors must be contiguous. The content of the file is trusted, so verify its SHA-256 first.

    Args:
        path: File written by `torch.save(module.state_dict(), path)` before PyTorch 1.6.

    Returns:
        The arrays by name.
    """
    with path.open('rb') as file:
        _magic, _protocol, _system, tensors, keys = (_Unpickler(file).load() for _ in range(5))
        dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
        storages = {key: _read_storage(file, dtypes[key]) for key in keys}
    return {name: _array(tensor, storages) for name, tensor in tensors.items()}


def _read_storage(file: IO[bytes], dtype: np.dtype) -> np.ndarray:
    size = int.from_bytes(file.read(8), 'little')
    return np.frombuffer(file.read(size * dtype.itemsize), dtype)


def _array(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    end = tensor.offset + math.prod(tensor.shape)
    return storages[tensor.storage.key][tensor.offset : end].reshape(tensor.shape)

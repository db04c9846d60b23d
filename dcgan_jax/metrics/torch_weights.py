"""Reads a PyTorch state_dict (.pth) into NumPy, without PyTorch and without executing anything.

Both of PyTorch's formats are pickles with the numbers beside them: in a zip archive, or (until
PyTorch 1.6) one after the other in one file. The unpickler knows only what a state_dict is made of.
"""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath

from dcgan_jax.runtime.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MOST_BYTES = 2**31  # of a file

_TYPES = {
    'DoubleStorage': np.dtype('<f8'),
    'FloatStorage': np.dtype('<f4'),
    'HalfStorage': np.dtype('<f2'),
    'LongStorage': np.dtype('<i8'),
    'IntStorage': np.dtype('<i4'),
}


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int  # in elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class _StateDict(dict):
    """Stands for OrderedDict; has attributes, because PyTorch hangs `_metadata` on it."""


class _Call:
    """A function that a pickle may call; it has no attributes for a pickle to change."""

    __slots__ = ('__call',)

    def __init__(self, function: Callable):
        self.__call = function

    def __call__(self, *arguments: Any) -> Any:
        return self.__call(*arguments)


def _ordered_dict(items: Any = ()) -> _StateDict:
    return _StateDict(items)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_unused: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    good = isinstance(storage, _Storage) and all(type(n) is int and n >= 0 for n in numbers)
    if not good or len(shape) != len(strides):
        raise pickle.UnpicklingError('a tensor is malformed')
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """Makes dicts of `_Tensor`; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('collections', 'OrderedDict'):
            return _Call(_ordered_dict)
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _Call(_rebuild_tensor)
        if module == 'torch' and name in _TYPES:
            return _StorageType(_TYPES[name])
        raise pickle.UnpicklingError(f'it asks for {module}.{name}, which no state_dict needs')

    def persistent_load(self, pid: Any) -> _Storage:
        # ('storage', type, key, device, elements), in the older format with one more: None.
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == 'storage'):
            raise pickle.UnpicklingError('it refers to something that is no storage')
        _, kind, key, _, size, *view = pid
        if any(part is not None for part in view) or not isinstance(kind, _StorageType):
            raise pickle.UnpicklingError('it has a storage of an unknown kind')
        if type(key) is not str or type(size) is not int or size < 0:
            raise pickle.UnpicklingError('it has a malformed storage')
        return _Storage(key, kind.dtype, size)


def read(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a state_dict.

    Args:
        path: a file that `torch.save(module.state_dict(), path)` wrote, in either format.

    Raises:
        UserError: it can't be read, holds anything else, or asks for code.
    """
    path = epath.Path(path).expanduser()
    try:
        if path.stat().length > _MOST_BYTES:
            raise ValueError(f'it has more than {_MOST_BYTES:,} bytes')
        content = path.read_bytes()
        tensors, storages = (
            _read_zip(content) if zipfile.is_zipfile(io.BytesIO(content)) else _read_legacy(content)
        )
        if not isinstance(tensors, dict):
            raise ValueError('it holds no state_dict')
        return {str(name): _array(tensor, storages) for name, tensor in tensors.items()}
    except Exception as error:  # A damaged pickle raises anything.
        words = str(error).partition('\n')[0]
        raise UserError(
            f'{path} can not be read as a PyTorch state_dict ({type(error).__name__}: {words}): '
            'give a .pth file of the published weights'
        ) from error


def _read_zip(content: bytes) -> tuple[Any, dict[str, bytes]]:
    """The object and the bytes of its storages, by key."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError('it is compressed, which PyTorch never does')
        names = set(archive.namelist())
        (pickled,) = (name for name in names if name.endswith('/data.pkl'))
        folder = pickled.removesuffix('data.pkl')
        order = f'{folder}byteorder'
        if order in names and archive.read(order) != b'little':
            raise ValueError('it is not little-endian')
        tensors = _load(io.BytesIO(archive.read(pickled)))
        prefix = f'{folder}data/'
        storages = {
            name.removeprefix(prefix): archive.read(name)
            for name in names
            if name.startswith(prefix)
        }
    return tensors, storages


def _read_legacy(content: bytes) -> tuple[Any, dict[str, bytes]]:
    """The same from the older format: five pickles, then the storages in the order of the fifth."""
    file = io.BytesIO(content)
    magic, protocol, system = (_load(file) for _ in range(3))
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        raise ValueError('it has none of the two formats')
    if not system['little_endian']:
        raise ValueError('it is not little-endian')
    tensors, keys = _load(file), _load(file)
    sizes = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(_exactly(file, 8), 'little', signed=True)
        if count != sizes[key].size:
            raise ValueError(f'storage {key} has {count} elements, not {sizes[key].size}')
        storages[key] = _exactly(file, count * sizes[key].dtype.itemsize)
    return tensors, storages


def _load(file: io.BytesIO) -> Any:
    """The next object of a file, once it's certain that it asks for no more memory than it fills.

    `Unpickler` makes room for as many remembered objects, or bytes, as a pickle says it has.
    """
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name in ('PUT', 'LONG_BINPUT') and argument > position:
            raise pickle.UnpicklingError(f'it remembers an object as number {argument}')
    file.seek(start)
    return _Unpickler(file).load()


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise ValueError('it ends too early')
    return content


def _array(tensor: Any, storages: dict[str, bytes]) -> np.ndarray:
    """A tensor's numbers, copied, once it's certain that they lie within its storage."""
    if not isinstance(tensor, _Tensor):
        raise ValueError('its values are not all tensors')
    numbers = np.frombuffer(storages[tensor.storage.key], tensor.storage.dtype)
    if len(numbers) != tensor.storage.size:
        raise ValueError(f'storage {tensor.storage.key} has a wrong size')
    if 0 in tensor.shape:
        return np.empty(tensor.shape, numbers.dtype)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    repeats = any(
        stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if last >= len(numbers) or repeats:
        raise ValueError('a tensor is larger than its storage')
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :],
        tensor.shape,
        [stride * numbers.itemsize for stride in tensor.strides],
        writeable=False,
    ).copy()

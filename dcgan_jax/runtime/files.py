"""Reading and atomic writing of files; paths may be local or remote (`gs://`)."""

import contextlib
import errno
import hashlib
import json
import lzma
import math
import os
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from dcgan_jax.runtime.errors import UserError

MAX_HASHED_BYTES = 2**30  # Largest total size of files that `digest` reads.

# Raised by zipfile for archives that are truncated, modified, encrypted or use other compression.
_DAMAGE = (
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError,
)  # fmt: skip
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


NOT_UNICODE = 'the text is not valid UTF-8: use another name, or set a UTF-8 locale (LANG=C.UTF-8)'


def is_unicode(text: str) -> bool:
    """Return whether a string has no surrogates, by which Python represents invalid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape(text: str) -> str:
    r"""Replace the control characters and surrogates of a text by escapes such as '\n'."""
    return ''.join(
        ascii(char)[1:-1] if unicodedata.category(char) in ('Cc', 'Cs') else char for char in text
    )


def check_path(path: object, name: str) -> str:
    """Return a path given by the user as a string; raise `UserError` if it is not a path."""
    if not isinstance(path, str | os.PathLike) or isinstance(text := os.fspath(path), bytes):
        raise UserError(f'{name}={path!r} is not a path: pass a string or a path object')
    return text


def resolve_path(path: epath.PathLike, name: str) -> epath.Path:
    """Return a path given by the user, with `~` expanded; it may be remote.

    Args:
        path: Path of an existing or new file or folder.
        name: Name of the setting in error messages, e.g. '--workdir'.

    Raises:
        UserError: If the path is not a string or path object, is not valid UTF-8, or its file
            system is not supported.
    """
    text = check_path(path, name)
    if '\0' in text or not is_unicode(text):
        raise UserError(f'{name}={text!r}: {NOT_UNICODE}')
    try:
        path = epath.Path(text).expanduser()
        path.exists()
    except (ImportError, KeyError) as error:  # The package of this file system is not installed.
        raise UserError(
            f'{name}={text} cannot be reached ({error}): install the missing package, or use a '
            'local folder'
        ) from error
    return path


@contextlib.contextmanager
def raise_unreadable(name: object) -> Iterator[None]:
    """Raise `UserError` if access to a file is denied.

    Args:
        name: The path or the setting in the error message.
    """
    try:
        yield
    except Exception as error:  # TensorStore raises `ValueError`.
        if not (isinstance(error, PermissionError) or 'PERMISSION_DENIED' in str(error)):
            raise
        reason = next(iter(str(error).splitlines()), '')[:200]
        raise UserError(f'{name} cannot be read ({reason}): make it readable') from error


def in_bucket(path: epath.PathLike) -> bool:
    """Return whether a path is in an object store (`gs://`), which has no real folders."""
    return '://' in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Return an absolute path; remote paths already are."""
    path = epath.Path(path)
    return path if in_bucket(path) else path.absolute()


def is_regular_file(path: epath.PathLike) -> bool:
    """Return whether a path is a regular file; `epath.Path.is_file` is also true for pipes."""
    return epath.Path(path).is_file() if in_bucket(path) else os.path.isfile(path)


def reject_special_file(path: epath.PathLike) -> None:
    """Raise `OSError` for a pipe, a socket or a device, because a read may block forever."""
    if in_bucket(path):
        return
    if os.path.exists(path) and not (os.path.isdir(path) or os.path.isfile(path)):
        raise OSError(
            errno.EINVAL, 'not a regular file, but a pipe, socket or device', os.fspath(path)
        )


def read_bytes(path: epath.PathLike) -> bytes:
    """Read a file; raise `OSError` if it cannot be read, or is a pipe, a socket or a device."""
    reject_special_file(path)
    return epath.Path(path).read_bytes()


class FileStatus(NamedTuple):
    """Size and modification time of a file.

    Attributes:
        size: Size in bytes.
        modified_time: Seconds from the epoch to the last modification.
    """

    size: int
    modified_time: float


def file_status(path: epath.PathLike) -> FileStatus:
    """Return the size and modification time of a file; raise `OSError` if it does not exist."""
    if in_bucket(path):
        status = epath.Path(path).stat()
        return FileStatus(status.length, status.mtime)
    status = os.stat(path)  # `epath.Path.stat` fails for owners without an entry in passwd.
    return FileStatus(status.st_size, status.st_mtime)


def total_size(paths: Iterable[epath.PathLike]) -> int:
    """Return the total size of files in bytes."""
    return sum(file_status(path).size for path in paths)


def digest(paths: Sequence[epath.PathLike]) -> str:
    """Return a SHA-256 of the sizes and contents of files.

    For more than `MAX_HASHED_BYTES` in total, modification times are hashed instead of contents.
    """
    result = hashlib.sha256()
    read_all = total_size(paths) <= MAX_HASHED_BYTES
    for path in map(epath.Path, paths):
        size, modified_time = file_status(path)
        result.update(f'{size}\n'.encode())  # Separates the files.
        if not read_all:
            result.update(f'{modified_time}\n'.encode())
            continue
        with path.open('rb') as file:
            while block := file.read(2**20):
                result.update(block)
    return result.hexdigest()


def write_atomic(path: epath.PathLike, content: bytes) -> epath.Path:
    """Write a file atomically, create its folder if needed, and return its path."""
    path = epath.Path(path)
    if in_bucket(path):  # Objects are written atomically.
        path.write_bytes(content)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is random, because processes may write the same file at the same time, also on
    # several machines. `path.name` may have the maximum length.
    partial = path.parent / f'{os.urandom(8).hex()}.partial'
    try:
        partial.write_bytes(content)
        return partial.replace(path)
    except OSError:  # For example, the disk is full.
        partial.unlink(missing_ok=True)
        raise


def write_json(path: epath.PathLike, content: Any) -> epath.Path:
    """Write JSON to a file like `write_atomic`."""
    return write_atomic(path, f'{json.dumps(content, indent=2)}\n'.encode())


def read_npz(path: epath.PathLike, limit: int) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file without unpickling.

    Args:
        path: Path of the file.
        limit: Largest allowed total size of the arrays in bytes.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If the file is damaged, contains anything but arrays, or exceeds the limit.
    """
    reject_special_file(path)
    with epath.Path(path).open('rb') as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > limit:
                    raise ValueError(f'it has {size:,} bytes, more than {limit:,}')
                for entry in archive.infolist():
                    _check_array(archive, entry)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except _DAMAGE as error:
            raise ValueError(f'{error}') from error


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise ValueError unless an entry is an array with the number of bytes that it declares."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f'{entry.filename} has the unknown format {version}')
        shape, _, dtype = _HEADERS[version](file)
    if math.prod(shape) * max(dtype.itemsize, 1) > entry.file_size:
        raise ValueError(f'{entry.filename} declares {dtype} {list(shape)} but has fewer bytes')

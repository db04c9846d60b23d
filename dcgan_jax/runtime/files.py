"""Files that are there whole or not at all; paths may be local or `gs://`."""

import lzma
import math
import os
import zipfile
import zlib

import numpy as np
from etils import epath

from dcgan_jax.runtime.errors import UserError

# What zipfile raises for archives that are cut, changed, encrypted or of unknown compression.
_DAMAGE = (
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError,
)  # fmt: skip
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def is_unicode(text: str) -> bool:
    """Bytes of an argument that are no UTF-8 come as surrogates, which can't be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def reachable(path: epath.PathLike, what: str) -> epath.Path:
    """A path that a user names, `~` being the user's; it may lie in a bucket.

    Args:
        path: of a file or folder, be it there or not.
        what: names it in messages: `--workdir`, say.

    Raises:
        UserError: it is of a kind that is not known here, or no text.
    """
    named = os.fspath(path)
    if '\0' in named or not is_unicode(named):
        raise UserError(f'{what}={named!r} is no UTF-8 text: choose another name')
    try:
        path = epath.Path(named).expanduser()
        path.exists()
    except (ImportError, KeyError) as error:  # The package for such buckets, or epath, lacks it.
        raise UserError(
            f'{what}={named} can not be reached ({error}): install what that takes, or name a '
            'local folder'
        ) from error
    return path


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is that of an object store (`gs://`), which has no folders of its own."""
    return '://' in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """A path that doesn't depend on the current folder, as those in buckets don't anyway."""
    path = epath.Path(path)
    return path if in_bucket(path) else path.absolute()


def write_atomic(path: epath.PathLike, content: bytes) -> epath.Path:
    """Writes a file whole or not at all, making its folder; returns its path."""
    path = epath.Path(path)
    if in_bucket(path):  # Objects are there when they are whole.
        path.write_bytes(content)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of one run may write the same file to a cache at once.
    partial = path.parent / f'{path.name}.{os.getpid()}.partial'
    try:
        partial.write_bytes(content)
        return partial.replace(path)
    except OSError:  # A full disk is no fuller for it.
        partial.unlink(missing_ok=True)
        raise


def read_npz(path: epath.PathLike, limit: int) -> dict[str, np.ndarray]:
    """Reads all arrays of an npz file; nothing is unpickled.

    Args:
        path: the file.
        limit: most bytes that the arrays may have.

    Raises:
        OSError: the file can't be opened.
        ValueError: it is damaged, holds something else than arrays, or exceeds the limit.
    """
    with epath.Path(path).open('rb') as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > limit:
                    raise ValueError(f'it holds {size:,} bytes, more than {limit:,}')
                for entry in archive.infolist():
                    _check_array(archive, entry)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except _DAMAGE as error:
            raise ValueError(f'{error}') from error


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuses what is no array, or declares a larger one than it holds: NumPy would allocate it."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f'{entry.filename} has the format {version}, which is not known')
        shape, _, dtype = _HEADERS[version](file)
    if math.prod(shape) * max(dtype.itemsize, 1) > entry.file_size:
        raise ValueError(f'{entry.filename} says that it is {dtype} {list(shape)}, and is smaller')

"""Files that are there whole or not at all; paths may be local or `gs://`."""

import math
import os
import zipfile

import numpy as np
from etils import epath


def write_whole(path: epath.PathLike, content: bytes) -> epath.Path:
    """Writes a file whole or not at all, making its folder; returns its path."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of one run may write the same file to a cache at once.
    partial = path.parent / f'{path.name}.{os.getpid()}.partial'
    partial.write_bytes(content)
    return partial.replace(path)


def read_npz(path: epath.PathLike, limit: float = math.inf) -> dict[str, np.ndarray]:
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
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f'{error}') from error

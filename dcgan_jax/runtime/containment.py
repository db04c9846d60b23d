"""Check that results are not written to folders of input images, where they would be read later."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from etils import epath

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import in_bucket

_Identity = tuple[int, int] | str  # Device and inode; the path if there are no inodes.


def check_outside(
    path: epath.PathLike,
    flag: str,
    inputs: Mapping[str, epath.PathLike],
    subfolders: Iterable[str] = (),
) -> None:
    """Check that an output folder is outside of all folders that are read as inputs.

    Folders are also recognized if they are reached through symbolic links or bind mounts, including
    links and mount points below the input folders. An output folder that contains an input file, to
    which there is a symbolic link in an input folder, is rejected as well.

    Args:
        path: The output folder, which may not exist yet.
        flag: Name of the output folder's flag in error messages.
        inputs: Folders of input images by the names of their flags; '' means none. They may not
            exist yet.
        subfolders: Names of folders in `path` that must not contain input folders.

    Raises:
        UserError: If the output folder or one of its subfolders is inside an input folder, or an
            input folder is inside a subfolder.
    """
    if in_bucket(path):
        return
    outputs = [_resolve(Path(path, name)) for name in ('', *subfolders)]
    parents = {folder: _identify_parents(folder) for folder in outputs}
    owned = set(filter(None, map(_identify, outputs[1:])))
    for name, value in inputs.items():
        if not os.fspath(value) or in_bucket(value):
            continue
        root = _resolve(value)
        linked = set()
        read = set(_walk(root, linked))
        written = [
            folder
            for folder in outputs
            # A data set that does not exist yet may be prepared later.
            if folder.is_relative_to(root)
            or not read.isdisjoint(parents[folder])
            or folder in linked
        ]
        if not owned.isdisjoint(_identify_parents(root)):
            written.append(root)
        if written:
            raise UserError(
                f'{flag}={path}: results in {written[0]} would be among the files of '
                f'{name}={value}: use another folder'
            )


def _resolve(path: epath.PathLike) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))


def _identify(folder: epath.PathLike) -> _Identity | None:
    """Return the identity of a folder, or None if it does not exist.

    Unlike its path, its device and inode are the same wherever a folder is bind-mounted.
    """
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _identify_parents(path: Path) -> set[_Identity]:
    """Identify a folder and its parents, as far as they exist."""
    return set(filter(None, map(_identify, (path, *path.parents))))


def _walk(root: Path, linked: set[Path]) -> Iterator[_Identity]:
    """Identify a folder and all folders in it, each once.

    Args:
        root: The folder.
        linked: The folders of the files that are reached through symbolic links are added to it.
    """
    seen, pending = set(), [root]
    while pending:
        folder = pending.pop()
        identity = _identify(folder)
        if identity is None or identity in seen:
            continue
        seen.add(identity)
        yield identity
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        pending.append(entry.path)
                    elif entry.is_symlink():
                        linked.add(_resolve(entry.path).parent)
        except OSError:  # Reported when the images are read.
            continue

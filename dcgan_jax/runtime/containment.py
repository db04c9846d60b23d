"""Check that results are not written to folders of input images, where they would be read later."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from etils import epath

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import in_bucket


def check_outside(
    path: epath.PathLike,
    flag: str,
    inputs: Mapping[str, epath.PathLike],
    subfolders: Iterable[str] = (),
) -> None:
    """Check that an output folder is outside of all folders that are read as inputs.

    Symbolic links are resolved, including those in the input folders.

    Args:
        path: The output folder, which may not exist yet.
        flag: Name of the output folder's flag in error messages.
        inputs: Folders of input images by the names of their flags; '' means none.
        subfolders: Names of folders in `path` that must not contain input folders.

    Raises:
        UserError: If the output folder or one of its subfolders is inside an input folder, or an
            input folder is inside a subfolder.
    """
    if in_bucket(path):
        return
    owned = [_resolve(Path(path, name)) for name in subfolders]
    outputs = [_resolve(path), *owned]
    for name, value in inputs.items():
        root = _resolve(value)
        if not os.fspath(value) or not os.path.isdir(root):  # Path.is_dir raises for long names.
            continue
        read = set(_walk(root))
        written = next((o for o in outputs if not read.isdisjoint((o, *o.parents))), None)
        if written or any(root.is_relative_to(folder) for folder in owned):
            raise UserError(
                f'{flag}={path}: results in {written or root} would be read as images of '
                f'{name}={value}: use another folder'
            )


def _resolve(path: epath.PathLike) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))


def _walk(root: Path) -> Iterator[Path]:
    """Yield the resolved paths of a folder and of all folders in it, each once."""
    seen, pending = set(), [root]
    while pending:
        folder = pending.pop()
        if folder in seen:
            continue
        seen.add(folder)
        yield folder
        try:
            pending += [_resolve(entry) for entry in os.scandir(folder) if entry.is_dir()]
        except OSError:  # Reported when the images are read.
            continue

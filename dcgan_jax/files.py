"""Files that are there whole or not at all; paths may be local or `gs://`."""

from etils import epath


def write_whole(path: epath.PathLike, content: bytes) -> epath.Path:
    """Writes a file whole or not at all, making its folder; returns its path."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f'{path.name}.partial'
    partial.write_bytes(content)
    return partial.replace(path)

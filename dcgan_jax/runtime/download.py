"""Downloads with a checksum."""

import hashlib
import http.client
import os
import urllib.request
import uuid
from pathlib import Path

import tqdm

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import reject_special_file

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: If the file cannot be read, or is a pipe, a socket or a device.
    """
    reject_special_file(path)
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def fetch(url: str, path: Path, checksum: str, remedy: str) -> None:
    """Download a file unless it exists, and check its SHA-256.

    An existing file is never overwritten.

    Args:
        url: URL of the file.
        path: Path of the file, which is created only if the checksum is right.
        checksum: SHA-256 as hexadecimal digits.
        remedy: Advice for error messages.

    Raises:
        UserError: If the download fails or a checksum is wrong.
    """
    if path.exists():
        if (actual := sha256(path)) != checksum:
            raise UserError(
                f'{path} has SHA-256 {actual}, not {checksum}: delete it, or replace it by {url}'
            )
        return
    partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _download(url, partial)
        if (actual := sha256(partial)) != checksum:
            raise UserError(
                f'{url} returned {partial.stat().st_size} bytes (expected {size or "unknown"}) '
                f'with SHA-256 {actual}, not {checksum}: {remedy}'
            )
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f'cannot download {url} ({error}): {remedy}') from error
    finally:
        partial.unlink(missing_ok=True)


def _download(url: str, path: Path) -> int | None:
    """Download with a progress bar and return the size that the server declared, if any."""
    with (
        path.open('wb') as target,
        urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source,
    ):
        length = source.headers.get('Content-Length')
        size = int(length) if length else None
        name = url.rsplit('/', 1)[-1]
        with tqdm.tqdm(total=size, unit='B', unit_scale=True, desc=name, disable=None) as bar:
            while block := source.read(_BLOCK_BYTES):
                target.write(block)
                bar.update(len(block))
    return size

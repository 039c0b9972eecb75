"""Download an archive from its publisher: to a temporary file, checked, unpacked safely, renamed into place.

At every moment the destination either has the complete folder or does not have it at all.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastdat.data.errors import DataError

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total, None where the server does not tell."""

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """A tar archive at ``url``, its checksums in hex, and the one top-level ``folder`` wanted from it."""

    url: str
    sha256: str
    md5: str
    folder: str


def fetch(archive: Archive, dest: str | Path, progress: Progress | None = None) -> Path:
    """Put ``archive.folder`` into ``dest`` and return its path; nothing is done where it is there already.

    Raises:
        DataError: no connection, an interrupted transfer, a wrong checksum, an archive without the folder, or a
            destination that cannot be written. Nothing is left behind.
    """
    dest = Path(dest)
    target = dest / archive.folder
    if target.is_dir():
        return target
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=dest) as scratch:
            packed = Path(scratch, "archive")
            _receive(archive, packed, progress or (lambda done, total: None))
            return _unpack(archive, packed, target)
    except OSError as error:
        raise DataError(f"cannot write to {dest}: {error.strerror or error}") from error


def _receive(archive: Archive, path: Path, progress: Progress) -> None:
    """Write ``archive.url`` to ``path`` and check it."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    done, total = 0, None
    with path.open("wb") as file:
        for chunk, total in _chunks(archive.url):
            file.write(chunk)
            sha256.update(chunk)
            md5.update(chunk)
            done += len(chunk)
            progress(done, total)
    # A connection that is cut ends the chunks without an error.
    if total is not None and done != total:
        raise DataError(
            f"the download of {archive.url} was interrupted at {done} of {total} bytes. Run again."
        )
    for name, found, expected in (("sha256", sha256, archive.sha256), ("md5", md5, archive.md5)):
        if found.hexdigest() != expected:
            raise DataError(
                f"{archive.url} is not the file expected: its {name} is {found.hexdigest()}, not {expected}. "
                "It was damaged on the way, or replaced; nothing of it was kept."
            )


def _chunks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """The body of ``url`` in pieces, each with the total length, if known."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            length = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK):
                yield chunk, int(length) if length else None
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url} answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:  # URLError, time-outs, TLS and resets are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot download {url}: {reason}. Check the connection and run again.") from error


def _unpack(archive: Archive, packed: Path, target: Path) -> Path:
    """Unpack ``packed`` beside itself and move its folder to ``target``."""
    unpacked = packed.parent / "unpacked"
    try:
        with tarfile.open(packed) as tar:
            tar.extractall(unpacked, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive.url} cannot be unpacked: {error}") from error
    folder = unpacked / archive.folder
    if not folder.is_dir():
        raise DataError(f"{archive.url} holds no folder {archive.folder}")
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)  # another download finished first
    return target

"""Download a data set from its publisher: into a temporary folder, check it, unpack it safely, move it into place.

At every moment the destination holds the complete folder or none of it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastdat.data.archive import ArchiveError, unpack
from fastdat.util import files
from fastdat.util.errors import DataError

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total; the total is None if the server does not send it."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_SCRATCH_PREFIX = ".download-"


@dataclass(frozen=True)
class Archive:
    """A tar or zip archive.

    Args:
        url: where to download it.
        md5: its checksum, in hex.
        folder: the one top-level folder wanted from it.
        sha256: a second checksum, in hex; None if only the md5 is known.
    """

    url: str
    md5: str
    folder: str
    sha256: str | None = None


@dataclass(frozen=True)
class Files:
    """Single files.

    Args:
        folder: the folder they go to.
        urls: the md5 of each URL, in hex.
    """

    folder: str
    urls: Mapping[str, str]


def fetch(origin: Archive | Files, dest: str | Path, progress: Progress | None = None) -> Path:
    """Put ``origin.folder`` into ``dest`` and return its path. A folder that exists already is left as it is.

    Raises:
        DataError: no connection, an interrupted transfer, a wrong checksum, an archive without the folder, or a
            destination that cannot be written. Nothing is left behind.
    """
    dest = Path(dest)
    target = dest / origin.folder
    if target.is_dir():
        return target
    progress = progress or (lambda done, total: None)
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with _scratch_folder(dest) as scratch:
            if isinstance(origin, Files):
                return _place(_fetch_files(origin, scratch, progress), target)
            return _place(_fetch_archive(origin, scratch, progress), target)
    except OSError as error:
        raise DataError(f"cannot write to {dest}: {error.strerror or error}") from error


def _fetch_files(origin: Files, scratch: Path, progress: Progress) -> Path:
    """Download the files into a folder in ``scratch``."""
    folder = scratch / "files"
    folder.mkdir()
    for url, md5 in origin.urls.items():
        _receive(url, {"md5": md5}, folder / url.rpartition("/")[2], progress)
    return folder


def _fetch_archive(origin: Archive, scratch: Path, progress: Progress) -> Path:
    """Download and unpack the archive in ``scratch``; returns the wanted folder."""
    packed, unpacked = scratch / "archive", scratch / "unpacked"
    _receive(origin.url, {"sha256": origin.sha256, "md5": origin.md5}, packed, progress)
    try:
        unpack(packed, unpacked)
    except ArchiveError as error:
        raise DataError(f"{origin.url} cannot be unpacked: {error}") from error
    folder = unpacked / origin.folder
    if not folder.is_dir():
        raise DataError(f"{origin.url} holds no folder {origin.folder}")
    return folder


@contextmanager
def _scratch_folder(dest: Path) -> Iterator[Path]:
    """A temporary folder in ``dest``. Folders left behind by killed downloads are removed first."""
    for leftover in dest.glob(f"{_SCRATCH_PREFIX}*"):
        with suppress(OSError):
            # A younger one may belong to a download that has not locked it yet.
            if time.time() - leftover.stat().st_mtime > _TIMEOUT:
                with _lock(leftover) as locked:
                    if locked:
                        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=dest) as folder, _lock(Path(folder)):
        yield Path(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[bool | None]:
    """Lock ``folder`` for the duration of the block; yields the result of :func:`fastdat.util.files.lock`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield files.lock(descriptor)
    finally:
        os.close(descriptor)


def _receive(url: str, checksums: Mapping[str, str | None], path: Path, progress: Progress) -> None:
    """Write ``url`` to ``path`` and verify every checksum (algorithm -> hex digest) that is not None."""
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in checksums}
    done, total = 0, None
    with path.open("wb") as file:
        for chunk, total in _chunks(url):
            file.write(chunk)
            for digest in digests.values():
                digest.update(chunk)
            done += len(chunk)
            progress(done, total)
    # A broken connection ends the chunks without an error.
    if total is not None and done != total:
        raise DataError(f"the download of {url} was interrupted at {done} of {total} bytes. Run again.")
    for name, expected in checksums.items():
        found = digests[name].hexdigest()
        if expected is not None and found != expected:
            raise DataError(
                f"{url} is not the expected file: its {name} is {found}, not {expected}. "
                "It was damaged on the way or replaced; nothing of it was kept."
            )


def _chunks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """The body of ``url`` in chunks, each with the total length (None if the server does not send it)."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            length = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk, int(length) if length and length.isdecimal() else None
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url} answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:  # URLError, time-outs, TLS and resets are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot download {url}: {reason}. Check the connection and run again.") from error


def _place(folder: Path, target: Path) -> Path:
    """Move the complete ``folder`` to ``target`` in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)  # another download finished first
    return target

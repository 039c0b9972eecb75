"""Download a data set from its publisher: to a temporary file, checked, unpacked safely, renamed into place.

At every moment the destination either has the complete folder or does not have it at all.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastdat.util import files
from fastdat.util.errors import DataError

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total, None where the server does not tell."""

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_SCRATCH = ".download-"


@dataclass(frozen=True)
class Archive:
    """A tar or zip archive at ``url``, its checksums in hex, and the one top-level ``folder`` wanted from it.

    ``sha256`` is None where the publisher gives only the md5.
    """

    url: str
    md5: str
    folder: str
    sha256: str | None = None


@dataclass(frozen=True)
class Files:
    """Single files, each url with its md5 in hex, and the ``folder`` they go to."""

    folder: str
    urls: Mapping[str, str]


def fetch(origin: Archive | Files, dest: str | Path, progress: Progress | None = None) -> Path:
    """Put ``origin.folder`` into ``dest`` and return its path; nothing is done where it is there already.

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
        with _scratch(dest) as scratch:
            if isinstance(origin, Files):
                folder = scratch / "files"
                folder.mkdir()
                for url, md5 in origin.urls.items():
                    _receive(url, {"md5": md5}, folder / url.rpartition("/")[2], progress)
                return _put(folder, target)
            packed = scratch / "archive"
            known = {"sha256": origin.sha256, "md5": origin.md5}
            _receive(origin.url, known, packed, progress)
            return _unpack(origin, packed, target)
    except OSError as error:
        raise DataError(f"cannot write to {dest}: {error.strerror or error}") from error


@contextmanager
def _scratch(dest: Path) -> Iterator[Path]:
    """A folder for what is on its way, in ``dest``; what downloads that were killed have left there is removed."""
    for left in dest.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            # A moment old, it may be one whose download is about to lock it.
            if time.time() - left.stat().st_mtime > _TIMEOUT:
                with _lock(left) as ours:
                    if ours:
                        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=dest) as folder, _lock(Path(folder)):
        yield Path(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[bool | None]:
    """Within it ``folder`` is locked, if it can be: :func:`fastdat.util.files.lock`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield files.lock(descriptor)
    finally:
        os.close(descriptor)


def _receive(url: str, checksums: Mapping[str, str | None], path: Path, progress: Progress) -> None:
    """Write ``url`` to ``path`` and check it against those of its ``checksums`` that are known."""
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in checksums}
    done, total = 0, None
    with path.open("wb") as file:
        for chunk, total in _chunks(url):
            file.write(chunk)
            for digest in digests.values():
                digest.update(chunk)
            done += len(chunk)
            progress(done, total)
    # A connection that is cut ends the chunks without an error.
    if total is not None and done != total:
        raise DataError(f"the download of {url} was interrupted at {done} of {total} bytes. Run again.")
    for name, expected in checksums.items():
        found = digests[name].hexdigest()
        if expected is not None and found != expected:
            raise DataError(
                f"{url} is not the file expected: its {name} is {found}, not {expected}. "
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
        if zipfile.is_zipfile(packed):
            with zipfile.ZipFile(packed) as archived:
                archived.extractall(unpacked)  # keeps every name inside, whatever it says
        else:
            with tarfile.open(packed) as tar:
                tar.extractall(unpacked, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{archive.url} cannot be unpacked: {error}") from error
    folder = unpacked / archive.folder
    if not folder.is_dir():
        raise DataError(f"{archive.url} holds no folder {archive.folder}")
    return _put(folder, target)


def _put(folder: Path, target: Path) -> Path:
    """Move what is complete to where it belongs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)  # another download finished first
    return target

"""Unpack a tar or zip archive that may come from anywhere: inside one folder, and to a bounded size.

Data sets consist of files and folders. So everything else that an archive may hold is refused, links above all: most
ways out of the folder lead over them.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

#: Bytes of all members together, as a multiple of the archive's and beyond that. CIFAR-10 is 1.1 times its archive.
MOST_GROWTH = 20
ALWAYS_ALLOWED = 64 << 20
#: Bytes that a member counts beside its content: a tar's header, and about what tarfile remembers of it.
MEMBER_BYTES = 512
#: Members, at most. Tiny-ImageNet has 120,609.
MOST_MEMBERS = 4_000_000
#: Bytes that tarfile may ask for at once. It copies by 16 KiB; a member's name may claim to have gigabytes.
MOST_AT_ONCE = 1 << 20
#: Bytes after the last member. Programs fill up 10 KiB with zeros.
MOST_REST = 64 << 20

_GZIP = b"\x1f\x8b"


class ArchiveError(ValueError):
    """The archive is damaged, or holds what no data set needs; the message says what."""


def unpack(packed: Path, folder: Path) -> None:
    """Unpack a zip, a tar or a gzipped tar into ``folder``, which need not exist.

    Raises:
        ArchiveError: a damaged archive, a member outside of the folder, a link or a device, or too much content. What
            was unpacked before stays in ``folder``.
        OSError: a file cannot be read or written.
    """
    limits = _Limits(packed.stat().st_size)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(packed):
            with zipfile.ZipFile(packed) as archive:
                _unpack_zip(archive, folder, limits)
        else:
            with packed.open("rb") as file:
                compressed = file.read(len(_GZIP)) == _GZIP
                file.seek(0)
                with gzip.GzipFile(fileobj=file) if compressed else file as content:
                    bounded = _Bounded(content)
                    with tarfile.open(fileobj=bounded, mode="r:") as tar:  # type: ignore[call-overload]
                        tar.extractall(folder, _checked(tar, limits), filter="data")
                    bounded.read_rest()
    except ArchiveError:
        raise
    except Exception as error:  # tarfile, zipfile and zlib have a dozen
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveError(str(error) or type(error).__name__) from error


class _Limits:
    """What is still allowed."""

    def __init__(self, archive_bytes: int) -> None:
        self._most = MOST_GROWTH * archive_bytes + ALWAYS_ALLOWED
        self._bytes = self._members = 0

    def add(self, name: str, size: int) -> None:
        """Count a member.

        Raises:
            ArchiveError: its name leads out of the folder, or it is one too many.
        """
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or "\0" in name:
            raise ArchiveError(f"its member {name[:100]!r} lies outside of the folder")
        self._bytes += max(size, 0) + MEMBER_BYTES
        self._members += 1
        if self._bytes > self._most:
            raise ArchiveError(
                f"its members have more than {self._most:,} bytes, {MOST_GROWTH} times the archive's: it is a bomb"
            )
        if self._members > MOST_MEMBERS:
            raise ArchiveError(f"it has more than {MOST_MEMBERS:,} members")


def _unpack_zip(archive: zipfile.ZipFile, folder: Path, limits: _Limits) -> None:
    members = archive.infolist()
    for member in members:
        limits.add(member.filename, member.file_size)
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"its member {member.filename[:100]!r} is neither a file nor a folder")
    for member in members:  # zipfile stops at the size that was counted, whatever the content is
        archive.extract(member, folder)


def _checked(tar: tarfile.TarFile, limits: _Limits) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        limits.add(member.name, member.size)
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise ArchiveError(f"its member {member.name[:100]!r} is neither a file nor a folder")
        yield member


class _Bounded:
    """A file that is read in small pieces only."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file
        self.name = ""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_AT_ONCE:
            raise ArchiveError(f"it has {size:,} bytes in one place that is to be read at once")
        return self._file.read(size)

    def read_rest(self) -> None:
        """Read what follows the last member: the end of a gzip file says whether all of it was there."""
        for _ in range(MOST_REST // MOST_AT_ONCE):
            if not self._file.read(MOST_AT_ONCE):
                return
        raise ArchiveError(f"it goes on for {MOST_REST:,} bytes after its last member")

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

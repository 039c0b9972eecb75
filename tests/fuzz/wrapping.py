"""Files with the right checksums around any content, so that changes behind a checksum are tried too."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

import torch

from fastdat.training.seal import SealingWriter

_ZEROS = b"0" * 64
_MAGIC = 0x1950A86A20F9469CFC6C  # of files that torch wrote before it wrote archives


def sealed_json(content: bytes) -> bytes:
    """A JSON object, or what is left of one, with the digest that :mod:`fastdat.util.sealed_json` expects."""
    zeroed = b'{"sha256": "' + _ZEROS + b'", ' + content[1:]
    return zeroed.replace(_ZEROS, hashlib.sha256(zeroed).hexdigest().encode(), 1)


def gzipped(content: bytes) -> bytes:
    """The same bytes each time."""
    return gzip.compress(content, 1, mtime=0)


def png(content: bytes) -> bytes:
    """A PNG whose parts have the right checksums, as far as their lengths can be followed."""
    fixed, at = bytearray(content), 8
    while at + 12 <= len(fixed):
        (size,) = struct.unpack_from(">I", fixed, at)
        end = at + 8 + size
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def tar(content: bytes) -> bytes:
    """A tar file in which every block that may be a header has the right checksum."""
    fixed = bytearray(content)
    for at in range(0, len(fixed) - 511, 512):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + 512])
    return bytes(fixed)


def tar_of(members: Mapping[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """A tar file of these files, and of other members without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for other in others:
            archive.addfile(other)
    return out.getvalue()


def zip_of(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return out.getvalue()


def zip_members(archive: bytes) -> dict[str, bytes]:
    """Every file in a zip file, by name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zip_of_one_content(members: Mapping[str, bytes], name: str, copies: int) -> bytes:
    """A zip file in which further entries of the directory, ``name`` with a number, have the content of ``name``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        for i in range(copies):
            twin = copy.copy(archive.getinfo(name))
            twin.filename = f"{name}-{i}"
            archive.filelist.append(twin)
    return out.getvalue()


def torch_archive(state: Any) -> bytes:
    """What ``torch.save`` writes."""
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def pickle_in(archive: bytes) -> bytes:
    """The pickle in a file of ``torch.save``."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return file.read(next(name for name in file.namelist() if name.endswith("/data.pkl")))


def with_pickle(archive: bytes) -> Callable[[bytes], bytes]:
    """A function that puts another pickle into a file of ``torch.save``."""
    records = zip_members(archive)
    name = next(name for name in records if name.endswith("/data.pkl"))
    return lambda pickle: zip_of({**records, name: pickle}, zipfile.ZIP_STORED)


def sealed(archive: bytes) -> bytes:
    """A zip file with the digest of its bytes at its end, as checkpoints have it."""
    out = io.BytesIO()
    writer = SealingWriter(cast(BinaryIO, out))
    writer.write(archive)
    if len(archive) < 2:
        return archive
    writer.seal()
    return out.getvalue()


def with_two_directories(seen: bytes, hidden: bytes) -> bytes:
    """A file of ``torch.save`` that zipfile takes for ``seen``, and torch for ``hidden``; both have the same layout.

    zipfile looks for the zip64 end record before the end record, torch where the locator says.
    """
    ends = [archive.rfind(b"PK\x06\x06") for archive in (seen, hidden)]
    assert ends[0] == ends[1] > 0
    both = bytearray(hidden[: ends[0]] + seen)
    struct.pack_into("<Q", both, both.rfind(b"PK\x06\x07") + 8, 2 * ends[0])
    return bytes(both)


def shifted(archive: bytes) -> bytes:
    """A file of ``torch.save`` whose directory lies 4 bytes behind the place that its end record names."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        start = file.start_dir
    moved = bytearray(archive[:start] + bytes(4) + archive[start:])
    struct.pack_into("<Q", moved, moved.rfind(b"PK\x06\x07") + 8, moved.rfind(b"PK\x06\x06"))
    return bytes(moved)


def tar_and_pickle(hidden: bytes, seen: Any) -> bytes:
    """A tar file with the pickle ``hidden``, as torch wrote it before 0.1.10, and a legacy file of ``seen`` at once.

    The name of the tar's first member begins a text that spans the tar; the pickles of the other format follow.
    """
    zero = pickle.dumps(0, 2)
    members = {"n": b"", "storages": zero + pickle.dumps([], 2), "tensors": zero, "pickle": hidden}
    raw = bytearray(tar_of(members))
    raw[:100] = (b"\x80\x02T" + struct.pack("<I", len(raw) - 7)).ljust(99, b"x") + b"\0"
    magic, *rest = (pickle.dumps(part, 2) for part in (_MAGIC, 1001, {}, seen, []))
    return tar(bytes(raw)) + b"0" + magic[2:] + b"".join(rest)

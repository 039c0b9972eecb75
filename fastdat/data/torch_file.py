"""Look at a file of ``torch.save`` before torch does.

``torch.load(weights_only=True)`` calls nothing that the file names. It still trusts the file: it unpacks a compressed
record, be it a thousand times as large; it makes the containers that the pickle describes, be they nested a million
times, or keys of a dict that take years to hash. Here such files are found first.
"""

from __future__ import annotations

import os
import struct
import tarfile
import zipfile
from typing import Any, BinaryIO

import torch

from fastdat.data.pickle_machine import (
    HIGHEST_INTEGER,
    LOWEST_INTEGER,
    Call,
    ForeignNameError,
    Machine,
    Name,
    Reference,
)

MOST_ENTRIES = 1_000_000
"""Numbers, texts, tensors and containers in a file, or one for each byte of its pickle if that is more.

One that is in two places counts twice; a net of 70,000 tensors has more than a million.
"""
MOST_LEVELS = 64
"""Containers in each other."""

_ARCHIVE = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C  # of files that torch wrote before it wrote archives
_LEGACY_PICKLES, _CONTENT = 4, 2  # behind the magic number: protocol, system, content, keys of the storages
_CALLS = ("_rebuild_parameter", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_Storage = tuple[str, int, int]
"""Key, number of items, bytes of each."""

# The end of a zip archive: [zip64 end record, its locator,] end record, comment (APPNOTE 4.3.14 to 4.3.16).
_END = struct.Struct(
    "<4s4H2LH"
)  # mark, two disks, records on this one, records, size and start of the directory, comment
_LOCATOR = struct.Struct("<4sLQL")  # mark, disk, start of the zip64 end record, disks
_END64 = struct.Struct(
    "<4sQ2H2L4Q"
)  # mark, size, two versions, two disks, two counts, size and start of the directory


class TorchFileError(ValueError):
    """The file is none of ``torch.save``, a damaged one, or holds more than tensors, numbers and text.

    Args:
        problem: what is wrong.
        foreign: the name of something else that it refers to, and might call; None if that is not what is wrong.
    """

    def __init__(self, problem: str, foreign: str | None = None) -> None:
        super().__init__(problem)
        self.foreign = foreign


class _TensorNames:
    """The names that tensors and state_dicts are made of."""

    def __contains__(self, name: object) -> bool:
        if name in _PLAIN_NAMES:
            return True
        return isinstance(name, tuple) and name[0] == "torch" and _is_type(name[1])


_PLAIN_NAMES = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch.storage", "UntypedStorage"),
}
#: Bytes of an item of each kind of storage.
_ITEM_BYTES = {
    "UntypedStorage": 1, "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "ShortStorage": 2, "IntStorage": 4,
    "LongStorage": 8, "HalfStorage": 2, "BFloat16Storage": 2, "FloatStorage": 4, "DoubleStorage": 8,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip


def _is_type(name: str) -> bool:
    """Whether ``torch`` has a storage or a type of numbers of this name."""
    return name in _ITEM_BYTES or isinstance(getattr(torch, name, None), torch.dtype)


def check(file: BinaryIO, *, legacy: bool = False) -> Any:
    """Read all of the file but the tensors' numbers, and execute nothing.

    Args:
        file: open for reading; afterwards it is at its start.
        legacy: whether it may have the format of torch before version 1.6.

    Returns:
        The content; in place of each tensor, the :class:`fastdat.data.pickle_machine.Call` that would make it.

    Raises:
        TorchFileError: the message completes "FILE was not used: ".
        OSError: it cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    file.seek(0)
    try:
        if is_archive:
            return _of_archive(file, size)
        if legacy:
            return _of_pickles(file, size)
        raise TorchFileError("it is no archive of torch.save")
    except TorchFileError:
        raise
    except ForeignNameError as error:
        raise TorchFileError(str(error), error.name) from error
    except Exception as error:  # zipfile has a few of its own
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TorchFileError(str(error) or type(error).__name__) from error
    finally:
        file.seek(0)


def _of_archive(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if _directory(file, size) != (archive.start_dir, len(records)):
            raise TorchFileError("its directory is not where its end record says")
        sizes = {record.filename: record.file_size for record in records}
        if len({name.lower() for name in sizes}) != len(records):  # torch does not tell upper from lower case
            raise TorchFileError("two of its records have the same name")
        if any(r.compress_type != zipfile.ZIP_STORED or r.compress_size != r.file_size for r in records):
            raise TorchFileError("its records are compressed; torch.save does not compress")
        if sum(sizes.values()) > size:
            raise TorchFileError(f"its records have {sum(sizes.values()):,} bytes, more than the file")
        if any(record.flag_bits & 1 for record in records):
            raise TorchFileError("its records are encrypted")
        pickles = [name for name in sizes if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise TorchFileError(f"it has {len(pickles)} records data.pkl; expected one")
        content, storages, _ = _read(archive.read(pickles[0]), "checkpoint")
    folder = pickles[0].partition("/")[0]
    for key, count, item_bytes in storages:
        found = sizes.get(f"{folder}/data/{key}")
        if found != count * item_bytes:
            raise TorchFileError(
                f"a tensor has {count * item_bytes:,} bytes, and its record data/{key[:40]} "
                f"{'is missing' if found is None else f'has {found:,}'}"
            )
    return content


def _directory(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """Start and number of records of the archive's directory; None if two readers may take it for different ones.

    zipfile and torch look for the end records in different ways, and zipfile moves a directory that is not where they
    say. So everything must lie where torch.save writes it: directory, end records and comment, with nothing between.
    """
    first = max(0, size - _END.size - 0xFFFF)
    file.seek(first)
    end = first + file.read().rfind(b"PK\x05\x06")
    if end < first or end + _END.size > size:
        return None
    file.seek(end)
    _, _, _, _, count, length, start, comment = _END.unpack(file.read(_END.size))
    if end + _END.size + comment != size:
        return None
    file.seek(max(0, end - _LOCATOR.size))
    locator = file.read(min(end, _LOCATOR.size))
    if locator.startswith(b"PK\x06\x07"):
        end -= _LOCATOR.size + _END64.size
        if _LOCATOR.unpack(locator)[2] != end:
            return None
        file.seek(end)
        mark, *_, count, length, start = _END64.unpack(file.read(_END64.size))
        if mark != b"PK\x06\x06":
            return None
    return (start, count) if start + length == end else None


def _of_pickles(file: BinaryIO, size: int) -> Any:
    try:
        tarfile.open(fileobj=file, mode="r:").close()  # torch tries this first
    except tarfile.TarError:
        file.seek(0)
    else:
        raise TorchFileError("it is a tar archive, as torch wrote them before version 0.1.10")
    raw = file.read()
    magic = Machine(raw, (), purpose="weights")
    if magic.run() != _MAGIC:
        raise TorchFileError("it is no file of torch.save")
    found, start = [], magic.end
    for _ in range(_LEGACY_PICKLES):
        content, storages, start = _read(raw, "weights", start)
        found.append((content, sum(count * item_bytes for _, count, item_bytes in set(storages))))
    content, needed = found[_CONTENT]
    if needed > size:
        raise TorchFileError(f"its tensors have {needed:,} bytes, more than the file")
    return content


def _read(raw: bytes, purpose: str, start: int = 0) -> tuple[Any, list[_Storage], int]:
    """What a pickle describes, the storages that it refers to, and where it ends.

    Raises:
        TorchFileError: a reference is none to a storage, or the pickle makes something too large, too deep, with a
            large integer, or by another call than that of a tensor. Also if its content is without it: torch makes it.
    """
    machine = Machine(raw, _TensorNames(), references=True, purpose=purpose, start=start)
    content = machine.run()
    most = max(MOST_ENTRIES, machine.end - start)
    known: dict[int, tuple[int, int]] = {}
    storages = []
    for part in (content, *machine.made):
        _measure(part, most, known)
        if isinstance(part, Call) and part.name not in _CALLS:
            raise TorchFileError(f"it calls {part.name}, which makes no tensor")
        if isinstance(part, Reference):
            storages.append(_storage(part.key))
    return content, storages, machine.end


def _storage(key: Any) -> _Storage:
    is_storage = type(key) is tuple and len(key) >= 5 and key[0] == "storage" and type(key[1]) is Name
    item_bytes = _ITEM_BYTES.get(key[1].name) if is_storage else None
    if item_bytes is None or type(key[2]) is not str or type(key[4]) is not int or key[4] < 0:
        raise TorchFileError("it refers to something that is no storage of a tensor")
    return key[2], key[4], item_bytes


def _measure(value: Any, most: int, known: dict[int, tuple[int, int]], outer: int = 0) -> tuple[int, int]:
    """Entries of a value, a shared one counted each time, and levels of its containers.

    Args:
        value: any.
        most: entries that are allowed.
        known: the containers that were measured, by ``id``.
        outer: containers around it.
    """
    if type(value) is int and not LOWEST_INTEGER <= value <= HIGHEST_INTEGER:
        raise TorchFileError(f"it has an integer of {value.bit_length():,} bits")
    inner = _inside(value)
    if inner is None:
        return 1, 0
    if outer == MOST_LEVELS:
        raise TorchFileError(f"it has more than {MOST_LEVELS} containers in each other")
    if id(value) not in known:
        known[id(value)] = most, 0  # until it is measured: one that contains itself is too large
        entries, levels = 1, 0
        for item in inner:
            more, deep = _measure(item, most, known, outer + 1)
            entries, levels = entries + more, max(levels, deep)
            if entries > most:
                raise TorchFileError(f"it has more than {most:,} entries")
        known[id(value)] = entries, levels + 1
    if outer + known[id(value)][1] > MOST_LEVELS:
        raise TorchFileError(f"it has more than {MOST_LEVELS} containers in each other")
    return known[id(value)]


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Call):
        return (value.args, value.state)
    return (value.key,) if isinstance(value, Reference) else None

"""Look at a file of ``torch.save`` before torch does.

``torch.load(weights_only=True)`` calls nothing that the file names. It still trusts the file: it unpacks a compressed
record, be it a thousand times as large; it makes the containers that the pickle describes, be they nested a million
times, or keys of a dict that take years to hash. Here such files are found first.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch

from fastdat.data.pickle_machine import Call, ForeignNameError, Machine, Name, Reference

MOST_ENTRIES = 1_000_000
"""Numbers, texts, tensors and containers in a file; one that is in two places counts twice."""
MOST_LEVELS = 64
"""Containers in each other."""

_ARCHIVE = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C  # of files that torch wrote before it wrote archives
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of the storages


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
            return _of_pickles(file.read(), size)
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
        content = Machine(
            archive.read(pickles[0]), _TensorNames(), references=True, purpose="checkpoint"
        ).run()
    folder = pickles[0].partition("/")[0]
    for key, count, item_bytes in _storages(content):
        found = sizes.get(f"{folder}/data/{key}")
        if found != count * item_bytes:
            raise TorchFileError(
                f"a tensor has {count * item_bytes:,} bytes, and its record data/{key[:40]} "
                f"{'is missing' if found is None else f'has {found:,}'}"
            )
    return content


def _of_pickles(raw: bytes, size: int) -> Any:
    found, start = [], 0
    for _ in range(_LEGACY_PICKLES):
        machine = Machine(raw, _TensorNames(), references=True, purpose="weights", start=start)
        found.append(machine.run())
        start = machine.end
        if found[0] != _MAGIC or type(found[0]) is not int:
            raise TorchFileError("it is no file of torch.save")
    needed = sum({key: count * item_bytes for key, count, item_bytes in _storages(found[3])}.values())
    if needed > size:
        raise TorchFileError(f"its tensors have {needed:,} bytes, more than the file")
    return found[3]


def _storages(content: Any) -> Iterator[tuple[str, int, int]]:
    """Key, number of items and bytes of each of every storage that the content refers to.

    Raises:
        TorchFileError: a reference is none to a storage, or the content is too large, too deep or has a large integer.
    """
    references: list[Reference] = []
    _count(content, references, {}, 0)
    for reference in references:
        key = reference.key
        is_storage = type(key) is tuple and len(key) >= 5 and key[0] == "storage" and type(key[1]) is Name
        item_bytes = _ITEM_BYTES.get(key[1].name) if is_storage else None
        if item_bytes is None or type(key[2]) is not str or type(key[4]) is not int or key[4] < 0:
            raise TorchFileError("it refers to something that is no storage of a tensor")
        yield key[2], key[4], item_bytes


def _count(value: Any, references: list[Reference], known: dict[int, int], level: int) -> int:
    """The number of entries, a shared one counted each time; every reference is appended to ``references`` once."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 64:
        raise TorchFileError(f"it has an integer of {value.bit_length():,} bits")
    if isinstance(value, Reference) and id(value) not in known:
        references.append(value)
    inner = _inside(value)
    if id(value) not in known and inner is not None:
        if level == MOST_LEVELS:
            raise TorchFileError(f"it has more than {MOST_LEVELS} containers in each other")
        known[id(value)] = MOST_ENTRIES  # until it is counted: one that contains itself is too large
        total = 1
        for item in inner:
            total += _count(item, references, known, level + 1)
            if total > MOST_ENTRIES:
                raise TorchFileError(f"it has more than {MOST_ENTRIES:,} entries")
        known[id(value)] = total
    return known.get(id(value), 1) if inner is not None else 1


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Call):
        return (value.args, value.state)
    return (value.key,) if isinstance(value, Reference) else None

"""Read the data file of an lmdb database (format 1, LMDB 0.9), and trust nothing in it.

liblmdb maps the file and follows its numbers wherever they lead: a wrong one ends the process with a bus error, without
a message. Here a page that is not what it must be is a :class:`DataError`. Reading is all that is supported, of the
main database, as LSUN is published.

The format is that of ``MDB_page``, ``MDB_meta`` and ``MDB_node`` in LMDB's ``mdb.c``, on a 64-bit machine of little
endianness.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastdat.util.errors import DataError

FILE = "data.mdb"

_PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
_HEADER = struct.Struct(
    "<QHHHH"
)  # of a page: number, padding, flags, end of the entries' places, start of the entries
_META = struct.Struct("<IIQQ")  # magic number, version, address, size of the map
_DATABASE = struct.Struct(
    "<IHHQQQQQ"
)  # size of a page, flags, depth, branches, leaves, overflow pages, entries, root
_TAIL = struct.Struct("<QQ")  # last page, number of the transaction
_NODE = struct.Struct(
    "<HHHH"
)  # size or page in two parts, flags or a third part of the page, size of the key
_BRANCH, _LEAF, _OVERFLOW, _IS_META = 1, 2, 4, 8
_LARGE = 1  # flag of a node whose value lies in overflow pages
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NO_PAGE = (1 << 64) - 1
_DEEPEST = 32  # levels of the tree; 32 bits of pages need fewer
_CACHED = 4096  # branch pages
_LONGEST_KEY = 511  # bytes, unless liblmdb was built otherwise


class _Node(NamedTuple):
    """An entry of a page: of a branch the page below it, of a leaf its value."""

    key: bytes
    page: int
    size: int
    flags: int
    value: bytes


class LmdbFile:
    """The entries of a database; safe to read by several threads.

    Args:
        folder: holds data.mdb.

    Raises:
        DataError: it cannot be read, is truncated, or is no lmdb database.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._descriptor = -1
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY)
            self._bytes = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror or error}") from error
        self._page_bytes = 0
        self._root, self._pages, self._entries = self._newest()
        if self._bytes < self._pages * self._page_bytes:
            raise DataError(
                f"{self._path} is truncated: it has {self._bytes:,} of {self._pages * self._page_bytes:,} bytes."
            )
        self._branch = lru_cache(_CACHED)(lambda number: self._nodes(number, _BRANCH))

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def keys(self) -> Iterator[bytes]:
        """All keys, sorted.

        Raises:
            DataError: the database is damaged; at the end also if a key is missing.
        """
        waiting, visited = [] if self._root == _NO_PAGE else [self._root], 0
        last, found = b"", 0
        while waiting:
            number = waiting.pop()
            visited += 1
            if visited > self._pages:
                raise self._damaged(f"page {number} belongs to two others")
            if self._kind(number) == _BRANCH:
                waiting += [node.page for node in reversed(self._nodes(number, _BRANCH))]
                continue
            for node in self._nodes(number, _LEAF):
                if node.key <= last:
                    raise self._damaged(f"the keys before and on page {number} are not sorted")
                yield node.key
                last, found = node.key, found + 1
        if found != self._entries:
            raise self._damaged(f"it has {found:,} entries of {self._entries:,}")

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``; None if there is none.

        Raises:
            DataError: the database is damaged.
        """
        number = self._root
        for _ in range(_DEEPEST):
            if number == _NO_PAGE:
                return None
            if self._kind(number) == _LEAF:
                nodes = self._nodes(number, _LEAF)
                at = _last_not_after(nodes, key, 0)
                return self._value(nodes[at]) if nodes and nodes[at].key == key else None
            nodes = self._branch(number)
            if not nodes:
                raise self._damaged(f"page {number} is empty")
            number = nodes[
                _last_not_after(nodes, key, 1)
            ].page  # the first key of a branch counts as the smallest
        raise self._damaged(f"its tree has more than {_DEEPEST} levels")

    # --- pages --------------------------------------------------------------------------------------------------------

    def _newest(self) -> tuple[int, int, int]:
        """Root, number of pages and of entries, from the newer of the two pages that describe the database."""
        first = self._read(0, _PAGE_SIZES[0], "its beginning")
        found = []
        self._page_bytes = self._page_size(first)
        for number in (0, 1):
            page = first if number == 0 else self._read(self._page_bytes, _PAGE_SIZES[0], "its second page")
            _, _, flags, _, _ = _HEADER.unpack_from(page)
            magic, version, _, _ = _META.unpack_from(page, _HEADER.size)
            if not flags & _IS_META or (magic, version) != (_MAGIC, _VERSION):
                raise self._damaged(f"page {number} does not describe a database of format {_VERSION}")
            at = _HEADER.size + _META.size + _DATABASE.size
            _, kind, _, _, _, _, entries, root = _DATABASE.unpack_from(page, at)
            last, transaction = _TAIL.unpack_from(page, at + _DATABASE.size)
            if kind != 0:
                raise self._damaged(f"its entries have the flags {kind}; expected none")
            found.append((transaction, root, last + 1, entries))
        _, root, pages, entries = max(found)
        return root, pages, entries

    def _page_size(self, first: bytes) -> int:
        size: int = _DATABASE.unpack_from(first, _HEADER.size + _META.size)[0]
        if size not in _PAGE_SIZES:
            raise self._damaged(f"it has pages of {size} bytes")
        return size

    def _kind(self, number: int) -> int:
        """Whether a page is a branch or a leaf."""
        _, flags, _, _ = self._header(number)
        if flags not in (_BRANCH, _LEAF):
            raise self._damaged(f"page {number} has the flags {flags}")
        return flags

    def _header(self, number: int) -> tuple[int, int, int, int]:
        own, _, flags, lower, upper = _HEADER.unpack(self._at(number, _HEADER.size))
        if own != number:
            raise self._damaged(f"page {number} says that it is page {own}")
        return own, flags, lower, upper

    def _nodes(self, number: int, kind: int) -> list[_Node]:
        """The entries of a branch or a leaf."""
        page = self._at(number, self._page_bytes)
        own, _, flags, lower, upper = _HEADER.unpack_from(page)
        if own != number or flags != kind or not _HEADER.size <= lower <= upper <= len(page) or lower % 2:
            raise self._damaged(f"page {number} is not what it must be")
        places = struct.unpack_from(f"<{(lower - _HEADER.size) // 2}H", page, _HEADER.size)
        nodes, size, last = [], 0, None
        for place in places:
            node = self._node(page, number, place, kind)
            size += _NODE.size + len(node.key) + len(node.value)
            if size > len(page):  # they lie in each other
                raise self._damaged(f"page {number} has entries of more bytes than it")
            if last is not None and node.key <= last:
                raise self._damaged(f"the keys on page {number} are not sorted")
            nodes.append(node)
            last = node.key
        return nodes

    def _node(self, page: bytes, number: int, place: int, kind: int) -> _Node:
        if not _HEADER.size <= place <= len(page) - _NODE.size:
            raise self._damaged(f"page {number} has an entry at {place}")
        low, high, flags, key_bytes = _NODE.unpack_from(page, place)
        if key_bytes > _LONGEST_KEY:
            raise self._damaged(
                f"page {number} has a key of {key_bytes:,} bytes; expected {_LONGEST_KEY} at most"
            )
        start = place + _NODE.size + key_bytes
        key = page[place + _NODE.size : start]
        if kind == _BRANCH:
            if len(key) != key_bytes:
                raise self._damaged(f"page {number} has an entry beyond its end")
            return _Node(key, low | high << 16 | flags << 32, 0, 0, b"")
        size, stored = low | high << 16, 8 if flags & _LARGE else low | high << 16
        value = page[start : start + stored]
        if len(key) != key_bytes or len(value) != stored or flags & ~_LARGE:
            raise self._damaged(f"page {number} has an entry beyond its end, or one that is no value")
        return _Node(key, 0, size, flags, value)

    def _value(self, node: _Node) -> bytes:
        if not node.flags & _LARGE:
            return node.value
        number = int.from_bytes(node.value, "little")
        _, flags, lower, upper = self._header(number)
        room = (
            lower | upper << 16
        ) * self._page_bytes - _HEADER.size  # these two are the number of its pages here
        if flags != _OVERFLOW or node.size > room:
            raise self._damaged(f"page {number} does not hold the {node.size:,} bytes of a value")
        return self._at(number, node.size, _HEADER.size)

    def _at(self, number: int, size: int, offset: int = 0) -> bytes:
        """Bytes of a page, and of those that follow it."""
        if not 1 < number < self._pages:
            raise self._damaged(f"it refers to page {number} of {self._pages}")
        return self._read(number * self._page_bytes + offset, size, f"page {number}")

    def _read(self, start: int, size: int, what: str) -> bytes:
        if start + size > self._bytes:
            raise self._damaged(f"{what} lies beyond its end")
        try:
            found = os.pread(self._descriptor, size, start)
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror or error}") from error
        if len(found) != size:
            raise self._damaged(f"it has become shorter at {what}")
        return found

    def _damaged(self, problem: str) -> DataError:
        return DataError(f"{self._path} cannot be read as lmdb: {problem}.")


def _last_not_after(nodes: list[_Node], key: bytes, first: int) -> int:
    """The last entry whose key is not after ``key``; the one before ``first`` if there is none, but at least 0."""
    low, high = first, len(nodes)
    while low < high:
        middle = (low + high) // 2
        if nodes[middle].key <= key:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, 0)

"""Our reader of lmdb files gives what lmdb gives, and refuses what would end the process."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import lmdb
import pytest

from fastdat.data import DataError
from fastdat.data.lmdb_file import LmdbFile

PAGE = 4096


def write(folder: Path, count: int, removed: int = 0) -> dict[bytes, bytes]:
    """A database of keys of several lengths, with values inside of pages and in pages of their own."""
    rng = random.Random(0)
    content = {
        rng.randbytes(rng.randrange(1, 200)): rng.randbytes(rng.choice((0, 1, 300, 3000, 20_000)))
        for _ in range(count)
    }
    keys = list(content)
    with lmdb.open(str(folder), map_size=1 << 28) as database:
        for part in (keys[::2], keys[1::2]):  # two transactions, so that both descriptions are in use
            with database.begin(write=True) as transaction:
                for key in part:
                    transaction.put(key, content[key])
        with database.begin(write=True) as transaction:
            for key in keys[:removed]:
                transaction.delete(key)
                del content[key]
    return content


@pytest.mark.parametrize(("count", "removed"), [(0, 0), (1, 0), (5, 5), (40, 10), (3000, 700)])
def test_it_reads_what_lmdb_wrote(count: int, removed: int, tmp_path: Path) -> None:
    content = write(tmp_path, count, removed)
    file = LmdbFile(tmp_path)
    assert list(file.keys()) == sorted(content)
    for key, value in content.items():
        assert file.get(key) == value
    for key in (b"", b"\x00", b"\xff" * 300, *(key + b"\x00" for key in list(content)[:50])):
        assert file.get(key) == content.get(key)


def changed(folder: Path, place: int, value: bytes) -> LmdbFile:
    raw = bytearray((folder / "data.mdb").read_bytes())
    raw[place : place + len(value)] = value
    (folder / "data.mdb").write_bytes(raw)
    return LmdbFile(folder)


def root(folder: Path) -> int:
    """The page of the root, from the newer description."""
    raw = (folder / "data.mdb").read_bytes()
    found = [struct.unpack_from("<QQQ", raw, page * PAGE + 16 + 24 + 48 + 40) for page in (0, 1)]
    return int(max(found, key=lambda entry: entry[2])[0])


def test_a_page_that_leads_back_to_itself(tmp_path: Path) -> None:
    """liblmdb would go round for ever, or to the end of its stack."""
    content = write(tmp_path, 3000)
    number = root(tmp_path)
    raw = (tmp_path / "data.mdb").read_bytes()
    (place,) = struct.unpack_from("<H", raw, number * PAGE + 16)
    file = changed(tmp_path, number * PAGE + place, struct.pack("<HHH", number, 0, 0))
    with pytest.raises(DataError, match="levels"):
        file.get(min(content))
    with pytest.raises(DataError, match="belongs to two others"):
        list(file.keys())
    file = changed(tmp_path, number * PAGE + place, struct.pack("<HHH", 7, 2, 1))
    for read in (lambda: file.get(min(content)), lambda: list(file.keys())):
        with pytest.raises(DataError, match=f"refers to page {7 + (2 << 16) + (1 << 32)} of "):
            read()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"\xff", "says that it is page"),
        (10, b"\x04", "has the flags 4"),
        (12, b"\xff\xff", "is not what it must be"),
        (14, b"\xff\xff", "is not what it must be"),
        (16, b"\xff\xff", "has an entry at 65535"),
        (16, b"\x00\x00", "has an entry at 0"),
    ],
)
def test_damaged_pages(place: int, value: bytes, message: str, tmp_path: Path) -> None:
    content = write(tmp_path, 3)
    file = changed(tmp_path, root(tmp_path) * PAGE + place, value)
    for read in (lambda: list(file.keys()), lambda: file.get(min(content))):
        with pytest.raises(DataError, match=f"cannot be read as lmdb: .*{message}"):
            read()


def made(folder: Path, page_bytes: int, leaf: bytes, entries: int, *values: bytes) -> LmdbFile:
    """A database of one leaf, and of pages with large values."""
    empty = struct.pack("<IHHQQQQQ", page_bytes, 0, 0, 0, 0, 0, 0, (1 << 64) - 1)
    main = struct.pack("<IHHQQQQQ", 0, 0, 1, 0, 1, 0, entries, 2)
    pages = [
        struct.pack("<QHHHH", number, 0, 8, 0, 0)
        + struct.pack("<IIQQ", 0xBEEFC0DE, 1, 0, 1 << 30)
        + empty
        + main
        + struct.pack("<QQ", 2 + len(values), 0)
        for number in (0, 1)
    ]
    (folder / "data.mdb").write_bytes(
        b"".join(page.ljust(page_bytes, b"\0") for page in (*pages, leaf, *values))
    )
    return LmdbFile(folder)


def leaf(page_bytes: int, places: list[int], nodes: bytes) -> bytes:
    """The page of :func:`made`; the places count from the first node."""
    start = 16 + 2 * len(places)
    listed = struct.pack(f"<{len(places)}H", *(start + place for place in places))
    return struct.pack("<QHHHH", 2, 0, 2, start, start) + listed + nodes


def node(key: bytes, value: bytes = b"") -> bytes:
    return struct.pack("<HHHH", len(value), 0, 0, len(key)) + key + value


#: Each key has 500 bytes: a number, and the 50 entries that follow.
IN_EACH_OTHER = b"".join(
    struct.pack("<HHHH", 0, 0, 0, 500) + struct.pack(">H", i) for i in range(2000)
) + bytes(500)


def test_a_database_made_by_hand(tmp_path: Path) -> None:
    file = made(tmp_path, PAGE, leaf(PAGE, [11, 0], node(b"bcd") + node(b"a" * 511, b"v")), 2)
    assert list(file.keys()) == [b"a" * 511, b"bcd"]
    assert file.get(b"a" * 511) == b"v"


def test_a_leaf_without_entries(tmp_path: Path) -> None:
    file = made(tmp_path, PAGE, leaf(PAGE, [], b""), 0)
    assert list(file.keys()) == []
    assert file.get(b"key") is None


@pytest.mark.parametrize(("lower", "upper", "room"), [(2, 0, 2 * PAGE - 16), (1, 1, 65_537 * PAGE - 16)])
def test_the_room_of_a_large_value(lower: int, upper: int, room: int, tmp_path: Path) -> None:
    """The number of its pages has two halves."""
    smaller = min(room, 40_000 * PAGE)  # more than the pages whose number has 15 bits; the file is sparse
    for size in (smaller, room + 1):
        large = struct.pack("<HHHH", size & 0xFFFF, size >> 16, 1, 3) + b"key" + struct.pack("<Q", 3)
        value = struct.pack("<QHHHH", 3, 0, 4, lower, upper) + b"value"
        made(tmp_path, PAGE, leaf(PAGE, [0], large), 1, value)
        with (tmp_path / "data.mdb").open("r+b") as content:
            content.truncate(3 * PAGE + 16 + size)
        file = LmdbFile(tmp_path)
        if size <= room:
            found = file.get(b"key")
            assert found is not None
            assert (len(found), found[:7]) == (size, b"value\0\0")
        else:
            with pytest.raises(DataError, match=rf"page 3 does not hold the {size:,} bytes of a value"):
                file.get(b"key")


@pytest.mark.parametrize(
    ("places", "nodes", "message"),
    [
        ([0] * 10_000, node(b"k" * 500), "are not sorted"),
        (list(range(0, 20_000, 10)), IN_EACH_OTHER, "has entries of more bytes than it"),
        ([0], node(b"k" * 512), "a key of 512 bytes; expected 511 at most"),
        ([10, 0], node(b"aa") + node(b"aa"), "are not sorted"),
        ([10, 0], node(b"aa") + node(b"ab"), "are not sorted"),
    ],
    ids=[
        "one entry many times",
        "entries in each other",
        "a long key",
        "a key twice",
        "keys in another order",
    ],
)
def test_entries_that_no_database_has(places: list[int], nodes: bytes, message: str, tmp_path: Path) -> None:
    """196 KB of the first took 434 MB."""
    file = made(tmp_path, 65536, leaf(65536, places, nodes), len(places))
    for read in (lambda: list(file.keys()), lambda: file.get(b"aa")):
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=message):
                read()
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


def test_a_page_that_is_listed_in_the_place_of_another(tmp_path: Path) -> None:
    """One wrong byte: the images of a page would be there twice, and those of another not at all."""
    with lmdb.open(str(tmp_path), map_size=1 << 26) as database, database.begin(write=True) as transaction:
        for i in range(400):
            transaction.put(b"%040d" % i, b"v" * 100)
    number = root(tmp_path)
    raw = (tmp_path / "data.mdb").read_bytes()
    places = struct.unpack_from("<3H", raw, number * PAGE + 16)
    third = raw[number * PAGE + places[2]]
    assert raw[number * PAGE + places[1]] != third
    file = changed(tmp_path, number * PAGE + places[1], bytes([third]))
    with pytest.raises(DataError, match="are not sorted"):
        list(file.keys())


def test_entries_that_are_missing(tmp_path: Path) -> None:
    for entries in (1, 3):
        file = made(tmp_path, PAGE, leaf(PAGE, [0, 10], node(b"aa") + node(b"bb")), entries)
        with pytest.raises(DataError, match=f"it has 2 entries of {entries}"):
            list(file.keys())


@pytest.mark.parametrize("size", [1 << 30, (1 << 31) - 1])
def test_a_value_beyond_its_pages(size: int, tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        transaction.put(b"key", b"v" * 20_000)
    number = root(tmp_path)
    raw = (tmp_path / "data.mdb").read_bytes()
    (place,) = struct.unpack_from("<H", raw, number * PAGE + 16)
    file = changed(tmp_path, number * PAGE + place, struct.pack("<I", size))
    with pytest.raises(DataError, match=rf"does not hold the {size:,} bytes of a value"):
        file.get(b"key")


def test_what_is_no_database(tmp_path: Path) -> None:
    for content in (b"", b"rubbish", bytes(8192), b"\xff" * 8192):
        (tmp_path / "data.mdb").write_bytes(content)
        with pytest.raises(DataError, match=r"data\.mdb cannot be read as lmdb"):
            LmdbFile(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        LmdbFile(tmp_path / "nowhere")

"""The reader executes nothing in a pickle, and still reads arrays in every protocol."""

import datetime
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdat.data import DataError
from fastdat.data.inert_pickle import ALLOWED, Call, byte_array, read


class Runs:
    """Pickles to a call of ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_calls_are_refused_and_not_executed(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    path = written(tmp_path, pickle.dumps({"data": Runs(os.mkdir, str(witness))}, protocol))
    with pytest.raises(DataError, match=r"(posix|nt)\.mkdir.*Nothing in it was executed"):
        read(path)
    assert not witness.exists()
    pickle.loads(path.read_bytes())
    assert witness.exists(), "an ordinary reader does execute the call"


@pytest.mark.parametrize(
    "attack",
    [
        b"c__builtin__\neval\n(S'1/0'\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__class__'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"cos\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\ndtype.__init__\n.",
        b"cnumpy\ndtype\n}S'x'\nK\x01sb.",  # BUILD on an imported name
        b"cnumpy\ndtype\n(N}S'x'\nK\x01stb.",  # BUILD with slots
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x02cnumpy\nndarray\n(K\x01l}b.",
        b"Pid\n.",  # PERSID
        b"\x80\x02K\x01Q.",  # BINPERSID
        b"\x80\x02\x82\x01.",  # EXT1
        b"cnumpy\nndarray\nK\x01a.",  # APPEND to a name
    ],
)
def test_handwritten_attacks_are_refused(tmp_path: Path, attack: bytes) -> None:
    with pytest.raises(DataError, match="Nothing in it was executed"):
        read(written(tmp_path, attack))


def test_allowed_calls_are_not_executed_either(tmp_path: Path) -> None:
    call = read(written(tmp_path, b"cnumpy\ndtype\n(S'no such type'\ntR."))
    assert isinstance(call, Call)
    assert call.args == (b"no such type",)
    # A class of the standard library is refused like any other.
    with pytest.raises(DataError, match=r"datetime\.date"):
        read(written(tmp_path, pickle.dumps(datetime.date(2020, 1, 1))))
    assert all(module.startswith(("numpy", "_codecs")) for module, _ in ALLOWED)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("shape", [(3, 4), (2, 1, 5), (7,)])
def test_arrays_pickled_by_python_3(tmp_path: Path, protocol: int, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = read(written(tmp_path, pickle.dumps({"data": array}, protocol)))
    found = byte_array(content["data"])
    assert found is not None
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((2, 3), np.int8),
        np.zeros((2, 3), np.float32),
        np.asfortranarray(np.zeros((2, 3), np.uint8)),
        [1, 2, 3],
        None,
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_other_arrays_give_none(tmp_path: Path, other: object) -> None:
    assert byte_array(read(written(tmp_path, pickle.dumps(other, 2)))) is None


def test_an_array_whose_bytes_do_not_fit_its_shape_gives_none(tmp_path: Path) -> None:
    pickled = pickle.dumps(np.zeros((2, 3), np.uint8), 3)
    assert pickled.count(b"K\x02K\x03\x86") == 1
    for shape in (b"K\x02K\x04\x86", b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86", b"K\x02N\x86"):
        assert byte_array(read(written(tmp_path, pickled.replace(b"K\x02K\x03\x86", shape)))) is None


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_pickle_gives_an_error_or_plain_data(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = pickle.dumps(
        {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "names": ["a"]}, 2
    )
    bad = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if bad:
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(bytes(bad))
    try:
        content = read(path)
    except DataError:
        return
    byte_array(content["data"] if isinstance(content, dict) and "data" in content else content)


def test_an_array_of_text_that_is_no_bytes_gives_none(tmp_path: Path) -> None:
    """Python 3 writes bytes as text in protocols 0 to 2."""
    pickled = pickle.dumps(np.array([5, 200], np.uint8), 2)
    text = b"X\x03\0\0\0" + "\x05\xc8".encode()
    assert pickled.count(text) == 1
    found = byte_array(read(written(tmp_path, pickled)))
    assert found is not None
    assert found.tolist() == [5, 200]
    longer = pickled.replace(text, b"X\x03\0\0\0" + "\x05\u0142".encode())
    assert byte_array(read(written(tmp_path, longer))) is None
    for codec in (b"latin-1", b"utf-8"):
        raw = pickled.replace(b"X\x06\0\0\0latin1", b"U" + bytes([len(codec)]) + codec)
        assert (byte_array(read(written(tmp_path, raw))) is None) == (codec == b"utf-8")


PLAIN = {
    "numbers": [0, 1, 255, 256, 65_535, 65_536, -1, -129, 2**31 - 1, -(2**31), 2**31, 2**80 + 7, -(2**2100)],
    "floats": [0.5, -1e300, float("inf")],
    "truth": [True, False, None],
    "texts": ["", "a\\nb\n", "é", "\N{GRINNING FACE}", "x" * 255, "y" * 256],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((5,), [6, (7, 8)])],
    "dicts": [{}, {3: 4}, {None: [], "k": {2.5: ()}}],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_as_by_pickle(protocol: int, tmp_path: Path) -> None:
    shared = [1, "two"]
    content: dict[str, Any] = PLAIN | {
        "shared": [shared, {"again": shared}, shared],
        "many": [*range(300)] * 2,
    }
    if protocol >= 3:
        content["bytes"] = [b"", b"\0\xff\n", b"x" * 256]
    if protocol >= 5:
        content["bytearray"] = bytearray(b"\0\xff")
    for number in range(300):  # so that the memo needs numbers of more than a byte
        content[f"key {number}"] = (f"value {number}", [shared, f"value {number}"])
    found = read(written(tmp_path, pickle.dumps(content, protocol)))
    assert found == content
    assert repr(found) == repr(content), "types too, and the order of keys"
    assert found["shared"][0] is found["shared"][1]["again"] is found["key 299"][1][0]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"I01\nI00\n\x86.", (True, False)),
        (b"I1\nL-7L\n\x86.", (1, -7)),
        (b"L8\nF2.5\n\x86.", (8, 2.5)),
        (b"S'it\\'s'\nS\"a\\x00\"\n\x86.", (b"it's", b"a\0")),
        (b"T\x02\x01\0\0" + b"x" * 258 + b".", b"x" * 258),
        (b"U\x03abcC\x02de\x86.", (b"abc", b"de")),
        (b"B\x02\0\0\0ab\x8e\x01\0\0\0\0\0\0\0c\x86.", (b"ab", b"c")),
        (b"X\x02\0\0\0\xc3\xa9\x8d\x01\0\0\0\0\0\0\0c\x86.", ("é", "c")),
        (b"\x8b\x02\0\0\0\x00\x80\x8a\x02\x00\x01\x86.", (-32_768, 256)),
        (b"J\xfe\xff\xff\xffM\x02\x01\x86.", (-2, 258)),
        (b"K\x01K\x02K\x030\x86.", (1, 2)),
        (b"K\x07(K\x02K\x031.", 7),
        (b"K\x052\x86.", (5, 5)),
        (b"(K\x01K\x02K\x03l(K\x04t\x86.", ([1, 2, 3], (4,))),
        (b"(K\x01K\x02U\x01kNd.", {1: 2, b"k": None}),
        (b"}(K\x01K\x02K\x03K\x04uK\x05K\x06s.", {1: 2, 3: 4, 5: 6}),
        (b"](K\x01K\x02eK\x03a.", [1, 2, 3]),
        (b"K\x01p300\n0K\x02q\x010K\x03r\x02\x01\0\x000(g300\nh\x01j\x02\x01\0\x00t.", (1, 2, 3)),
        (b"\x80\x05\x95\x02\0\0\0\0\0\0\0K\x09\x94K\x08\x94h\x00h\x01\x87\x94.", (8, 9, 8)),
    ],
    ids=lambda value: repr(value)[:20] if isinstance(value, bytes) else "",
)
def test_instructions_that_few_pickles_have(raw: bytes, value: Any, tmp_path: Path) -> None:
    found = read(written(tmp_path, raw))
    assert repr(found) == repr(value)


def test_the_largest_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(
        DataError, match="file has 1,073,741,825 bytes; the publisher's files have 1,073,741,824 at most"
    ):
        read(tmp_path / "file")
    monkeypatch.setattr("fastdat.data.inert_pickle.MOST_BYTES", 3)
    assert read(written(tmp_path, b"K\x07.")) == 7
    with pytest.raises(DataError, match="file has 4 bytes"):
        read(written(tmp_path, b"K\x07.."))


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nowhere: No such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read(tmp_path)

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


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nowhere: No such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read(tmp_path)

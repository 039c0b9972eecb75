"""Opening a store: the wrong one, a damaged one, one larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastdat.data import DataError, load_split
from fastdat.data.store import read_only_tensor
from tests.data.helpers import packed, run_command


@pytest.mark.parametrize(
    ("dataset", "size", "message"),
    [
        ("folder", 16, "holds folder at 32 pixels; expected folder at 16"),
        ("cifar10", 32, "expected cifar10 at 32"),
    ],
)
def test_another_store_than_wanted_is_refused(
    dataset: str, size: int, message: str, pictures: Path, tmp_path: Path
) -> None:
    packed(pictures, tmp_path / "store")
    with pytest.raises(DataError, match=message):
        load_split(dataset, tmp_path / "store", "train", size)


@pytest.mark.usefixtures("small_pieces")
def test_changed_pixels_are_found(pictures: Path, tmp_path: Path) -> None:
    packed(pictures, tmp_path / "store")
    path = tmp_path / "store" / "train.images.npy"
    raw = bytearray(path.read_bytes())
    raw[128 + 8 * 3072 + 5] ^= 1
    path.write_bytes(raw)
    code, _, err = run_command("data", "check", tmp_path / "store")
    assert code == 2
    assert "train: block 1 (images 8 to 15) has changed since it was packed" in err
    raw[128 + 8 * 3072 + 5] ^= 1
    path.write_bytes(raw)
    assert run_command("data", "check", tmp_path / "store")[:2] == (
        0,
        f"{tmp_path / 'store'} is undamaged\n",
    )


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train.images.npy", lambda raw: raw[:-1], "npy is damaged"),
        ("train.images.npy", lambda raw: b"", "npy is damaged"),
        ("train.labels.npy", lambda raw: raw[:-8], "npy is damaged"),
        ("store.json", lambda raw: raw[:-30], "store.json is damaged"),
        (
            "store.json",
            lambda raw: raw.replace(b'"format": 1', b'"format": 7'),
            "store of format 7; this version reads 1",
        ),
        (
            "store.json",
            lambda raw: raw.replace(b'"count": 60', b'"count": 61'),
            r"expected uint8 \(61, 3, 32, 32\)",
        ),
    ],
)
def test_a_damaged_store_does_not_open(
    name: str, damage: Any, message: str, pictures: Path, tmp_path: Path
) -> None:
    packed(pictures, tmp_path / "store")
    path = tmp_path / "store" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load_split("folder", tmp_path / "store", "train", 32)


def test_a_store_larger_than_memory_can_be_opened(pictures: Path, tmp_path: Path) -> None:
    """A sparse store of 1 TiB: what is mapped for reading does not count against memory."""
    store = packed(pictures, tmp_path / "store")
    count = (1 << 40) // (3 * 32 * 32)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, 3, 32, 32), }}".encode()
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    with (tmp_path / "store" / "train.images.npy").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + count * 3 * 32 * 32)
    store.index["splits"]["train"]["count"] = count
    images = store.images("train")
    assert images[count - 1].sum() == 0
    assert read_only_tensor(images)[count // 2].sum() == 0

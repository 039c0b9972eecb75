"""LSUN-Bedroom, on small databases in the publisher's layout."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray

from fastdat.data import DataError
from fastdat.data.lsun import open_lsun_bedroom
from tests.data.helpers import assert_refused, encoded, picture


def write_database(folder: Path, images: NDArray[np.uint8]) -> Path:
    """A database of WebP images under hexadecimal keys, as LSUN's."""
    with lmdb.open(str(folder), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for i, image in enumerate(images):
            file = encoded(picture(image), format="webp", lossless=True)
            transaction.put(f"{i * 7919 % 4093:040x}".encode(), file.getvalue())
    return folder


def test_train_and_test_split(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    folder = write_database(tmp_path / "bedroom_train_lmdb", pixels)
    train, test = (open_lsun_bedroom(tmp_path, split, test_images=6) for split in ("train", "test"))
    assert (len(train), len(test)) == (14, 6)
    assert not set(train.keys) & set(test.keys)
    assert open_lsun_bedroom(folder, "test", test_images=6).keys == test.keys, "the same ones each time"
    part = train.part(3, 5)
    assert (len(part), part.name_of(1), part.classes) == (2, train.name_of(4), ())
    again = pickle.loads(pickle.dumps(train))
    shown = {again.read(i)[0].tobytes() for i in range(14)} | {test.read(i)[0].tobytes() for i in range(6)}
    assert shown == {np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes() for image in pixels}
    assert_refused("lsun-bedroom", tmp_path, "has 20 images; 10,000 of them would be the test split")
    assert_refused("lsun-bedroom", tmp_path / "x", r"does not exist. Get bedroom_train_lmdb \(43 GB\)")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "data.mdb").write_bytes(b"rubbish")
    assert_refused("lsun-bedroom", tmp_path / "damaged", "cannot be read as lmdb")


def test_a_truncated_database_is_refused(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    """Reading beyond its end would kill the process without a message."""
    file = write_database(tmp_path / "bedroom_train_lmdb", pixels) / "data.mdb"
    size = file.stat().st_size
    for share in (0.9, 0.5):
        os.truncate(file, int(size * share))
        with pytest.raises(
            DataError, match=r"data.mdb is truncated: it has .* bytes. Get bedroom_train_lmdb"
        ):
            open_lsun_bedroom(tmp_path, "train", test_images=6)

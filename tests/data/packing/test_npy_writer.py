"""Files that grow: never filled up with zeros."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fastdat.data import DataError
from fastdat.data.packing.npy_writer import NpyWriter
from tests.data.helpers import packed, stop_after


@pytest.mark.parametrize("name", ["train.images.npy", "train.labels.npy"])
@pytest.mark.parametrize("damage", ["gone", "short"])
@pytest.mark.usefixtures("small_pieces")
def test_files_shorter_than_the_journal_are_refused(
    name: str, damage: str, pictures: Path, tmp_path: Path
) -> None:
    """Zeros in the gap would look like images to every checksum computed afterwards."""
    partial = stop_after(16, pictures, tmp_path / "store")
    if damage == "gone":
        (partial / name).unlink()
    else:
        os.truncate(partial / name, (partial / name).stat().st_size - 1)
    with pytest.raises(
        DataError, match=f"{name} is shorter than its journal says. Remove .*partial and pack again"
    ):
        packed(pictures, tmp_path / "store")


def test_a_reopened_file_keeps_what_it_should(tmp_path: Path) -> None:
    path, items = tmp_path / "a.npy", np.arange(12, dtype=np.int64).reshape(6, 2)
    with NpyWriter(path, np.int64, (2,), 0) as writer:
        writer.append(items)
    with NpyWriter(path, np.int64, (2,), 4) as writer:
        writer.append(items[:1])
        writer.write_header()
        assert writer.count == 5
    assert np.load(path).tolist() == [*items[:4].tolist(), items[0].tolist()]

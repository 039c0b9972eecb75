"""Images for training with labels must have classes; they are refused before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.data import DataError, load_split
from fastdat.data.packing import pack
from tests.data.helpers import save_black


def test_two_subfolders_are_enough(tmp_path: Path) -> None:
    save_black(tmp_path / "cat" / "0.png", tmp_path / "dog" / "deeper" / "0.png")
    found = load_split("folder", tmp_path, resolution=8, labelled=True)
    assert (found.classes, found.labels.tolist()) == (("cat", "dog"), [0, 1])
    pack("folder", tmp_path, tmp_path / "store", resolution=8, splits=("train",), workers=0)
    assert load_split("folder", tmp_path / "store", resolution=8, labelled=True).classes == ("cat", "dog")


def test_without_classes_nothing_is_decoded(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save_black(root / "cat" / "0.png", root / "dog" / "0.png")
    (root / "1.png").write_bytes(b"\x89PNG rubbish")

    def refused(message: str, folder: Path = root) -> None:
        with pytest.raises(DataError, match=message):
            load_split("folder", folder, resolution=8, labelled=True)

    refused(r"root has no classes: \S+root/1.png lies in no subfolder")
    (root / "1.png").unlink()
    save_black(root / "1.png")
    pack("folder", root, tmp_path / "store", resolution=8, splits=("train",), workers=0)
    refused(r"store was packed without classes[\s\S]* \S+store-classes --resolution 8", tmp_path / "store")
    (root / "1.png").rename(root / "cat" / "1.png")
    (root / "dog" / "0.png").rename(root / "cat" / "2.png")
    refused("root has a single class, cat, and training with labels needs two or more")

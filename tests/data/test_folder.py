"""Folders of images: classes, splits, links, and folders that can be understood in two ways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fastdat.data import load_split
from tests.data.helpers import assert_refused, picture, save_black


def test_subfolders_are_classes(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    for i, image in enumerate(pixels[:6]):
        folder = tmp_path / ("cat" if i % 2 else "dog")
        folder.mkdir(exist_ok=True)
        picture(image).save(folder / f"{i}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    found = load_split("folder", tmp_path, resolution=32)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (found.images[0].numpy() == pixels[1]).all()
    assert_refused("folder", tmp_path, "has no default resolution. Give --resolution")
    assert_refused("folder", tmp_path, "has no test split", "test", 32)
    (tmp_path / "cat" / "1.png").write_bytes(b"\x89PNG rubbish")
    assert_refused("folder", tmp_path, r"cat/1.png cannot be decoded: .*fastdat data pack", resolution=32)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused("folder", empty, "holds no images", resolution=32)
    assert_refused("folder", tmp_path / "nowhere", "does not exist", resolution=32)


def test_train_and_test_are_splits(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / split).mkdir()
        for i in range(count):
            Image.fromarray(np.ascontiguousarray(pixels[i, 0])).save(tmp_path / split / f"{i}.png")  # grey
    assert len(load_split("folder", tmp_path, "train", 16)) == 3
    test = load_split("folder", tmp_path, "test", 16)
    assert (test.images.shape, test.classes, test.labels.tolist()) == ((2, 3, 16, 16), (), [0, 0])


def test_classes_are_those_of_the_train_split(tmp_path: Path) -> None:
    save_black(*(tmp_path / name for name in ("train/cat/0.png", "train/dog/0.png", "test/dog/0.png")))
    test = load_split("folder", tmp_path, "test", 8)
    assert (test.classes, test.labels.tolist()) == (("cat", "dog"), [1])
    save_black(tmp_path / "test" / "fox" / "0.png", tmp_path / "test" / "pig" / "1.png")
    assert_refused(
        "folder", tmp_path, r"test/fox/0.png belongs to no class of the train split.*cat, dog", "test", 8
    )


def test_a_class_called_train_is_refused_as_unclear(tmp_path: Path) -> None:
    save_black(tmp_path / "train" / "0.png", tmp_path / "val" / "0.png")
    (tmp_path / "labels").mkdir()
    assert len(load_split("folder", tmp_path, resolution=8)) == 1
    save_black(tmp_path / "bus" / "0.png", tmp_path / "car" / "0.png")
    assert_refused(
        "folder", tmp_path, r"holds images in train and in bus, car. If train is a class", resolution=8
    )
    save_black(tmp_path / "test" / "0.png")
    assert len(load_split("folder", tmp_path, resolution=8)) == 1, "train and test together are splits"


def test_images_beside_train_are_refused_unless_there_is_a_test(tmp_path: Path) -> None:
    save_black(tmp_path / "train" / "0.png", tmp_path / "1.png", tmp_path / "val" / "2.png")
    assert_refused(
        "folder", tmp_path, r"holds images beside its folder train, the first one is 1\.png", resolution=8
    )
    save_black(tmp_path / "test" / "3.png")
    assert len(load_split("folder", tmp_path, "train", 8)) == 1
    (tmp_path / "1.png").unlink()
    (tmp_path / "test" / "3.png").unlink()
    (tmp_path / "test").rmdir()
    assert len(load_split("folder", tmp_path, "train", 8)) == 1, "val is for another purpose"


def test_links_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save_black(root / "cat" / "0.png", tmp_path / "elsewhere" / "0.png", root / ".hidden" / "0.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "fox").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "round").symlink_to(root)  # a cycle
    found = load_split("folder", root, resolution=8)
    assert found.classes == ("cat", "dog", "fox")
    assert found.labels.tolist() == [0, 1, 2]
    (root / "cat" / "1.png").symlink_to(tmp_path / "gone.png")
    assert_refused("folder", root, r"cat/1.png cannot be read: No such file", resolution=8)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_forbidden_folder_is_an_error(tmp_path: Path) -> None:
    save_black(tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    (tmp_path / "dog").chmod(0)
    try:
        assert_refused("folder", tmp_path, r"dog cannot be listed: Permission denied", resolution=8)
    finally:
        (tmp_path / "dog").chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_black(tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    scandir = os.scandir

    def failing(folder: Any) -> Any:
        if str(folder).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    assert_refused("folder", tmp_path, r"dog cannot be listed: Permission denied", resolution=8)

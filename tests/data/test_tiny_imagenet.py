"""Tiny-ImageNet: real images, and annotations that do not match the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fastdat.data import load_split
from tests.data.helpers import assert_refused, write_tiny_imagenet


def test_real_images(tiny_root: Path) -> None:
    found = load_split("tiny-imagenet", tiny_root, "test")
    assert found.images.shape == (4000, 3, 64, 64)
    assert (len(found.classes), int(found.labels.min()), int(found.labels.max())) == (200, 0, 199)
    folder = tiny_root / "tiny-imagenet-200"
    name, wnid, *_ = (folder / "val" / "val_annotations.txt").read_text().splitlines()[5].split("\t")
    with Image.open(folder / "val" / "images" / name) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(found.images[5], expected)
    assert found.classes[found.labels[5]] == wnid


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n02", "n09", r"val_annotations.txt, line 2: expected a file name and a class of the train split"),
        ("val_2.JPEG", "val_9.JPEG", "line 3, names val_9.JPEG, which is not in"),
        ("val_2.JPEG", "../val_2.JPEG", r"line 3, names \.\./val_2.JPEG, which is not in"),
        ("val_2.JPEG", "a" * 100 + "b", f"line 3, names {'a' * 100}, which is not in"),
        ("val_0.JPEG\tn01", "c" * 60 + "d", f"line 1: .*found '{'c' * 60}'"),
    ],
)
def test_annotations_that_do_not_match(
    old: str, new: str, message: str, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    table = write_tiny_imagenet(tmp_path, pixels) / "val" / "val_annotations.txt"
    assert load_split("tiny-imagenet", tmp_path, "test").labels.tolist() == [0, 1, 0, 1]
    assert load_split("tiny-imagenet", tmp_path).labels.tolist() == [0, 0, 1, 1]
    table.write_text(table.read_text().replace(old, new))
    assert_refused("tiny-imagenet", tmp_path, message, "test")
    table.unlink()
    assert_refused("tiny-imagenet", tmp_path, "val_annotations.txt is missing", "test")

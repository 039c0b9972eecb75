"""STL-10, on a small file in the publisher's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastdat.data import load_split
from fastdat.data import stl10 as stl10_module
from fastdat.data.resize import resized
from fastdat.data.stl10 import open_stl10
from tests.data.helpers import assert_refused


@pytest.fixture
def large(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """20 real images (20, 3, 96, 96)."""
    return np.stack([resized(image.transpose(1, 2, 0), 96).transpose(2, 0, 1) for image in pixels])


def column_by_column(images: NDArray[np.uint8]) -> bytes:
    """The images as the publisher stores them: each channel column by column."""
    return images.transpose(0, 1, 3, 2).tobytes()


def test_images_are_stored_column_by_column(large: NDArray[np.uint8], tmp_path: Path) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "unlabeled_X.bin").write_bytes(column_by_column(large))
    source = open_stl10(tmp_path, "train", count=20)
    image, label = source.read(4)
    assert (image.transpose(2, 0, 1) == large[4]).all()
    assert label == 0
    assert_refused("stl10", tmp_path, r"has 552,960 bytes; expected 2,764,800,000 \(100,000 images\)")
    assert_refused("stl10", tmp_path, "holds no stl10_binary/test_X.bin", "test")


def test_images_are_loaded_at_48_pixels(
    large: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stl10_module, "COUNTS", {"train": 20})
    (tmp_path / "unlabeled_X.bin").write_bytes(column_by_column(large))
    found = load_split("stl10", tmp_path)
    assert found.images.shape == (20, 3, 48, 48)
    expected = resized(np.ascontiguousarray(large[2].transpose(1, 2, 0)), 48)
    assert (found.images[2].permute(1, 2, 0).numpy() == expected).all()

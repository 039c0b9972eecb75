"""Small data sets of real images, and packing in small pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fastdat.data import ImageSet
from tests.data.helpers import SMALL_PIECES, SMALL_SHARDS, picture


@pytest.fixture
def pixels(cifar10: ImageSet) -> NDArray[np.uint8]:
    """20 real images (20, 3, 32, 32)."""
    images: NDArray[np.uint8] = cifar10.images[:20].numpy()
    return images


@pytest.fixture
def pictures(cifar10: ImageSet, tmp_path: Path) -> Path:
    """A folder with 60 real images to train on and 10 to test on, in two classes."""
    for i in range(70):
        folder = tmp_path / "pictures" / ("test" if i >= 60 else "train") / ("a" if i % 3 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        picture(cifar10.images[i].numpy()).save(folder / f"{i:03d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack in pieces of 8 images, each made durable at once."""
    for name, value in SMALL_PIECES.items():
        monkeypatch.setattr(name, value)


@pytest.fixture
def small_shards(small_pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack in small pieces into shards of 16 images at 32 pixels."""
    for name, value in SMALL_SHARDS.items():
        monkeypatch.setattr(name, value)

"""MNIST: idx files, plain or compressed, and damaged ones."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastdat.data import load_split
from tests.data.helpers import assert_refused


def idx(array: NDArray[np.uint8]) -> bytes:
    """An idx file."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("folder", ["", "MNIST/raw"])
def test_layouts(folder: str, compressed: bool, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    grey = np.ascontiguousarray(pixels[:, 1, 2:30, 2:30])
    here = tmp_path / folder
    here.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", grey), ("labels-idx1", np.arange(20, dtype=np.uint8) % 10)):
        content = gzip.compress(idx(array)) if compressed else idx(array)
        (here / f"train-{name}-ubyte{'.gz' * compressed}").write_bytes(content)
    found = load_split("mnist", tmp_path)
    assert (found.images[:, 0].numpy() == grey).all()
    assert found.labels.tolist() == [i % 10 for i in range(20)]
    padded = load_split("mnist", tmp_path, resolution=32).images
    assert torch.equal(padded[:, :, 2:30, 2:30], found.images)
    assert padded.sum() == found.images.sum(), "the padding is black"
    assert_refused(
        "mnist", tmp_path, "resolution of MNIST must be 28 or 32; got resolution=64", resolution=64
    )
    assert_refused("mnist", tmp_path, "holds no t10k-images-idx3-ubyte", "test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-5], "It is truncated"),
        (lambda raw: raw + b"\0", r"has 3,137 bytes of data; its header says \(4, 28, 28\)"),
        (lambda raw: raw[:15], "no idx file of 3 dimension"),
        (lambda raw: idx(np.zeros((4, 28, 27), np.uint8)), r"4 labels and images of shape \(4, 28, 27\)"),
        (
            lambda raw: idx(np.zeros((4, 27, 28), np.uint8)),
            r"images of shape \(4, 27, 28\); expected \(N, 28, 28\)",
        ),
        (lambda raw: idx(np.zeros((3, 28, 28), np.uint8)), r"4 labels and images of shape \(3, 28, 28\)"),
        (lambda raw: b"\0\0\x0d\3" + raw[4:], "no idx file of 3"),
        (lambda raw: b"", "it begins with nothing"),
        (lambda raw: gzip.compress(raw)[:40], "no idx file"),
    ],
    ids=["truncated", "longer", "header", "width", "height", "count", "floats", "empty", "gzip"],
)
def test_damaged_files(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    raw = idx(np.zeros((4, 28, 28), np.uint8))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, np.uint8)))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(raw)
    assert len(load_split("mnist", tmp_path)) == 4
    (tmp_path / "train-images-idx3-ubyte").write_bytes(damage(raw))
    assert_refused("mnist", tmp_path, message)


def test_labels_and_images_of_other_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    images.write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    labels.write_bytes(idx(np.zeros(0, np.uint8)))
    assert_refused(
        "mnist", tmp_path, r"0 labels and images of shape \(0, 28, 28\); expected \(N, 28, 28\), N > 0"
    )
    images.write_bytes(idx(np.zeros((2, 28, 28), np.uint8)))
    labels.write_bytes(idx(np.array([9, 10], np.uint8)))
    assert_refused("mnist", tmp_path, "labels must be 0 to 9, found 10")
    labels.write_bytes(idx(np.array([9, 0], np.uint8)))
    monkeypatch.setattr("fastdat.data.mnist._MOST_BYTES", 16 + 2 * 28 * 28)
    assert load_split("mnist", tmp_path).labels.tolist() == [9, 0]
    monkeypatch.setattr("fastdat.data.mnist._MOST_BYTES", 15 + 2 * 28 * 28)
    assert_refused("mnist", tmp_path, r"idx3-ubyte has more than 1,583 bytes when unpacked")

"""Sources: a part of one is small enough to send to a process, and reads the same images."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from fastdat.data import DataError
from fastdat.data.registry import DATASETS, open_split
from fastdat.data.source import ArraySource, FileSource


@pytest.mark.parametrize("name", ["folder", "cifar10", "tiny-imagenet"])
def test_a_part_holds_its_own_images_only(
    name: str, pictures: Path, cifar10_root: Path, tmp_path: Path
) -> None:
    """Even of a set of millions: what belongs to the whole set is sent only once per part."""
    source = open_split(DATASETS[name], pictures if name == "folder" else cifar10_root, "train")
    whole, parts = pickle.dumps(source), [source.part(i, min(i + 10, 60)) for i in range(0, 60, 10)]
    assert sum(len(pickle.dumps(part)) for part in parts) < 60 / len(source) * len(whole) + 6 * 8000
    for i in (0, 17, 59):
        image, label = parts[i // 10].read(i % 10)
        expected, expected_label = source.read(i)
        assert (image == expected).all()
        assert label == expected_label
        assert parts[i // 10].name_of(i % 10) == source.name_of(i)


@pytest.mark.parametrize("at_once", [1, 3, 7, 4096])
def test_the_identity_of_arrays_is_of_labels_and_all_pixels(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastdat.data.source._HASHED_TOGETHER", at_once)
    images, labels = np.random.default_rng(0).integers(0, 256, (7, 3, 2, 5), np.uint8), np.arange(7) * 300
    source = ArraySource(images, labels, ("a", "b"), first=40)
    assert source.identity() == hashlib.sha256(labels.tobytes() + images.tobytes()).hexdigest()
    turned = ArraySource(np.asfortranarray(images), labels)
    assert turned.identity() == source.identity()
    part = source.part(2, 6)
    assert part.identity() == hashlib.sha256(labels[2:6].tobytes() + images[2:6].tobytes()).hexdigest()
    assert (len(part), part.first, part.classes, part.name_of(3)) == (4, 42, ("a", "b"), "image 45")
    image, label = part.read(1)
    assert (image == images[3].transpose(1, 2, 0)).all()
    assert label == 900


def test_the_identity_of_files_is_of_paths_labels_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, content in (("a/x.png", b"12345"), ("y\udcff.png", b"123")):
        (tmp_path / name).write_bytes(content)
    source = FileSource(tmp_path, ("a/x.png", "y\udcff.png"), (7, 0), ("c",))
    expected = b"a/x.png\t7\t5\ny\xff.png\t0\t3\n"
    assert source.identity() == hashlib.sha256(expected).hexdigest()
    assert source.part(1, 2).identity() == hashlib.sha256(expected[12:]).hexdigest()
    assert source.part(1, 2).classes == ("c",)
    (tmp_path / "a" / "x.png").unlink()
    with pytest.raises(DataError, match=r"a/x\.png cannot be read: No such file"):
        source.identity()

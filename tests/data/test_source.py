"""Sources: a part of one is small enough to send to a process, and reads the same images."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fastdat.data.registry import DATASETS, open_split


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

"""Shards that grow: the next one begins when one is full, and what a killed run left over goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastdat.data.image_layout import ImageFiles
from fastdat.data.packing.shard_writer import ShardWriter, image_writer

IMAGES = np.random.default_rng(0).integers(0, 256, (19, 3, 2, 5), np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    return ImageFiles(tmp_path, "train", (3, 2, 5), shard=4)


def images_in(files: ImageFiles) -> list[int]:
    """Images in each of the files; those before them all must have the right pixels."""
    paths = sorted(files.folder.iterdir())
    assert paths == [files.path(number) for number in range(len(paths))]
    raw = b"".join(path.read_bytes() for path in paths)
    assert raw == IMAGES[: len(raw) // 30].tobytes()
    return [path.stat().st_size // 30 for path in paths]


@pytest.mark.parametrize("at_once", [1, 3, 4, 11, 19])
def test_appending(at_once: int, files: ImageFiles) -> None:
    with ShardWriter(files, 0) as writer:
        for first in range(0, 19, at_once):
            writer.append(IMAGES[first : first + at_once])
        writer.append(IMAGES[:0])
        writer.finish()
        assert writer.count == 19
    assert images_in(files) == [4, 4, 4, 4, 3]


@pytest.mark.parametrize(
    ("keep", "left"), [(0, []), (3, [3]), (4, [4]), (8, [4, 4]), (9, [4, 4, 1]), (19, [4, 4, 4, 4, 3])]
)
def test_going_on_after_a_kill(keep: int, left: list[int], files: ImageFiles) -> None:
    with ShardWriter(files, 0) as writer:
        writer.append(IMAGES)
    with ShardWriter(files, keep) as writer:
        assert images_in(files) == left
        writer.append(IMAGES[keep:])
    assert images_in(files) == [4, 4, 4, 4, 3]


def test_a_full_shard_is_on_the_disk_before_the_next_begins(
    files: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """make_durable waits for the open shard only."""
    waited: list[int] = []
    monkeypatch.setattr("os.fsync", lambda _: waited.append(len(list(files.folder.iterdir()))))
    with ShardWriter(files, 0) as writer:
        writer.append(IMAGES[:9])
        assert waited == [1, 2]
        writer.make_durable()
    assert waited == [1, 2, 3]


def test_a_split_of_few_images_has_one_file(tmp_path: Path) -> None:
    with image_writer(ImageFiles(tmp_path, "train", (3, 2, 5), None), 0) as writer:
        writer.append(IMAGES)
        writer.finish()
    assert (np.load(tmp_path / "train.images.npy") == IMAGES).all()

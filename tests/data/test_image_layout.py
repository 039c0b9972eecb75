"""Where images lie: how many go into a shard, and which bytes of which file are whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.data.image_layout import ImageFiles, images_per_shard, shard_images, shard_unit


@pytest.mark.parametrize(
    ("shape", "unit", "images"),
    [
        ((3, 64, 64), 4096, 86_016),  # 21 blocks of 50.3 MB are 1.06 GB, 22 are more than 2^30 bytes
        ((3, 32, 32), 4096, 348_160),  # 85 blocks of 12.6 MB
        ((1, 28, 28), 4096, 1_368_064),  # 334 blocks of 3.2 MB, each 49 pages of 64 KiB
        ((3, 31, 31), 65_536, 327_680),  # an odd number of bytes: 16 blocks fill whole pages
        ((3, 1024, 1024), 4096, 4096),  # a block is more than a shard may have
    ],
)
def test_a_shard_is_whole_blocks_and_pages(shape: tuple[int, int, int], unit: int, images: int) -> None:
    size = shape[0] * shape[1] * shape[2]
    assert (shard_unit(size), images_per_shard(size)) == (unit, images)
    assert unit % 4096 == unit * size % (1 << 16) == images % unit == 0


def test_few_images_stay_in_one_file() -> None:
    assert shard_images(86_016, 3 * 64 * 64) is None
    assert shard_images(86_017, 3 * 64 * 64) == 86_016
    assert shard_images(50_000, 3 * 32 * 32) is None


def test_places(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path, "train", (3, 2, 5), shard=7)
    assert files.counts(16) == [7, 7, 2]
    assert files.counts(14) == [7, 7]
    assert [files.place(image) for image in (0, 6, 7, 15)] == [(0, 0), (0, 180), (1, 0), (2, 30)]
    assert files.path(2) == tmp_path / "train.images-0002.u8"
    whole = ImageFiles(tmp_path, "train", (3, 2, 5), shard=None)
    assert (whole.counts(16), whole.place(7), whole.first) == ([16], (0, 338), tmp_path / "train.images.npy")


@pytest.mark.parametrize("shard", [None, 7])
def test_reading_across_files(shard: int | None, tmp_path: Path) -> None:
    files, pixels = ImageFiles(tmp_path, "train", (3, 2, 5), shard), bytes(range(240)) * 2
    start = 0
    for number, count in enumerate(files.counts(16)):
        files.path(number).write_bytes(files.header(16) + pixels[start : start + 30 * count])
        start += 30 * count
    assert files.read(5, 10) == pixels[150:450]
    assert files.read(0, 16) == pixels
    assert files.read(15, 1) == pixels[450:]

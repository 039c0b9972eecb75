"""Where the images of a split lie: in one .npy file or, if they are more than a shard holds, in several files.

Shards hold nothing but pixels, image after image, and all but the last have the same size, a multiple of the size of a
page of memory. So they are mapped one after another into one array (:mod:`fastdat.data.joined_map`), and no reader of
images has to know of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastdat.data import image_set, npy

#: Bytes of a shard, at most, unless a few images are more. LSUN-Bedroom at 64 pixels has 36 such files. They can be
#: copied side by side, and a damaged one alone; a set of 1 TB stays below the 1,024 files that a process may open.
SHARD_BYTES = 1 << 30
#: Shards are multiples of this many bytes: the largest page of memory on machines with GPUs (arm64).
PAGE_BYTES = 1 << 16


def shard_unit(image_bytes: int) -> int:
    """The fewest images that can be a shard: whole blocks of checksums that fill whole pages."""
    block_bytes = image_set.BLOCK * image_bytes
    return image_set.BLOCK * (PAGE_BYTES // math.gcd(PAGE_BYTES, block_bytes))


def images_per_shard(image_bytes: int) -> int:
    """Images in each shard of a set whose images have so many bytes."""
    unit = shard_unit(image_bytes)
    return max(1, SHARD_BYTES // (unit * image_bytes)) * unit


def shard_images(count: int, image_bytes: int) -> int | None:
    """Images in each shard of a split of ``count`` images; None if one file holds all."""
    most = images_per_shard(image_bytes)
    return most if count > most else None


@dataclass(frozen=True)
class ImageFiles:
    """The files with the images of a split.

    Args:
        folder: the store.
        split: name of the split.
        shape: (C, H, W) of an image.
        shard: images in each file but the last; None if a single .npy file holds all.
    """

    folder: Path
    split: str
    shape: tuple[int, int, int]
    shard: int | None

    @property
    def image_bytes(self) -> int:
        """Size of an image."""
        return math.prod(self.shape)

    @property
    def first(self) -> Path:
        """The file with the first image."""
        return self.path(0)

    def path(self, file: int) -> Path:
        """The ``file``-th of the files."""
        if self.shard is None:
            return npy.files_of(self.folder, self.split)[0]
        return self.folder / f"{self.split}.images-{file:04d}.u8"

    @property
    def pattern(self) -> str:
        """What the names of all shards match."""
        return f"{self.split}.images-*.u8"

    def header(self, count: int) -> bytes:
        """What a file starts with in a split of ``count`` images; shards have no header."""
        return npy.header(npy.IMAGES, (count, *self.shape)) if self.shard is None else b""

    def counts(self, count: int) -> list[int]:
        """The number of images in each file, for ``count`` images in all."""
        if self.shard is None:
            return [count]
        return [min(self.shard, count - first) for first in range(0, count, self.shard)]

    def place(self, image: int) -> tuple[int, int]:
        """The file that holds an image, and the byte of it at which the image starts."""
        if self.shard is None:
            return 0, npy.HEADER_BYTES + image * self.image_bytes
        return image // self.shard, image % self.shard * self.image_bytes

    def read(self, first: int, count: int) -> bytes:
        """The pixels of ``count`` images from ``first`` on; fewer if the files end before.

        Raises:
            OSError: a file is missing or cannot be read.
        """
        parts: list[bytes] = []
        stop = first + count
        while first < stop:
            file, start = self.place(first)
            end = stop if self.shard is None else min(stop, (file + 1) * self.shard)
            with self.path(file).open("rb") as opened:
                opened.seek(start)
                parts.append(opened.read((end - first) * self.image_bytes))
            first = end
        return b"".join(parts)


def image_paths(folder: Path, splits: Sequence[str]) -> list[Path]:
    """Every file that may hold the first image of one of the splits."""
    unsharded = [ImageFiles(folder, split, (1, 1, 1), None).first for split in splits]
    return unsharded + [ImageFiles(folder, split, (1, 1, 1), 1).first for split in splits]

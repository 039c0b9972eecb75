"""LSUN-Bedroom (Yu et al. 2015) as the publisher's lmdb database of WebP images.

As in the paper, 10,000 of the 3,033,042 training images are held out as the test split. Here a permutation of the
sorted keys with seed 0 selects them: its first 10,000 are the test split, the rest is the train split. The publisher's
own ``val`` set of 300 images is not used.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from fastdat.data.image_files import Pixels, UnreadableImage, decode
from fastdat.data.lmdb_file import LmdbFile
from fastdat.data.publisher import find_folder, missing
from fastdat.data.source import digest_of
from fastdat.util.errors import DataError

FOLDER = "bedroom_train_lmdb"
TEST_IMAGES = 10_000
_URL = f"http://dl.yf.io/lsun/scenes/{FOLDER}.zip"
_ADVICE = f"Get {FOLDER} (43 GB) from {_URL}, for which no checksum is published, and unzip it."


@dataclass(frozen=True)
class LSUNSource:
    """Images of an lmdb database, by key. Every process opens the database itself when it first reads."""

    folder: Path
    keys: tuple[bytes, ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> tuple[Pixels, int]:
        value = _database(self.folder).get(self.keys[index])
        if value is None:
            raise UnreadableImage("the key is gone")
        return decode(io.BytesIO(value)), 0

    def name_of(self, index: int) -> str:
        return self.keys[index].decode("ascii", "replace")

    def part(self, start: int, stop: int) -> LSUNSource:
        return replace(self, keys=self.keys[start:stop])

    def identity(self) -> str:
        return digest_of(self.keys)


def open_lsun_bedroom(root: Path, split: str, test_images: int = TEST_IMAGES) -> LSUNSource:
    """One split, RGB in the publisher's sizes (256 pixels and more).

    Raises:
        DataError: the database is missing or damaged, or has too few images for a test split.
    """
    folder = find_folder(root, FOLDER, lambda folder: (folder / "data.mdb").is_file())
    if folder is None:
        raise missing(root, f"{FOLDER}/data.mdb", _ADVICE)
    keys = sorted(_database(folder).keys())
    if len(keys) <= test_images:
        raise DataError(
            f"{folder} has {len(keys):,} images; {test_images:,} of them would be the test split, which leaves none "
            "to train on"
        )
    order = np.random.default_rng(0).permutation(len(keys))
    chosen = np.sort(order[:test_images] if split == "test" else order[test_images:])
    return LSUNSource(folder, tuple(bytes(keys[i]) for i in chosen))


def _database(folder: Path) -> LmdbFile:
    """The open database.

    Raises:
        DataError: it is damaged.
    """
    try:
        return _open(folder.resolve(), os.getpid())
    except DataError as error:
        raise DataError(f"{error} {_ADVICE}") from error


@lru_cache(maxsize=4)
def _open(folder: Path, process: int) -> LmdbFile:
    """Opened once in each process, however many splits are read from it."""
    return LmdbFile(folder)

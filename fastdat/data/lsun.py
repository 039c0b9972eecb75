"""LSUN-Bedroom (Yu et al. 2015) as the publisher's lmdb of WebP images.

As in the paper, 10,000 of the 3,033,042 training images are set aside as the test split: here those that a permutation
with seed 0 puts first, in the order of their keys. The rest is the train split. The publisher's own 300 of ``val`` are
not used.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fastdat.data.source import Pixels, UnreadableImage, decode, digest_of, not_there
from fastdat.util.errors import DataError

FOLDER = "bedroom_train_lmdb"
TEST_IMAGES = 10_000
_URL = f"http://dl.yf.io/lsun/scenes/{FOLDER}.zip"
_HOW = f"Get {FOLDER} (43 GB) from {_URL}, for which no checksum is published, and unzip it"


@dataclass(frozen=True)
class LSUNSource:
    """Images of an lmdb, by key. Every process opens the database for itself, when it first reads."""

    folder: Path
    keys: tuple[bytes, ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> tuple[Pixels, int]:
        with _reading(self.folder) as transaction:
            value = transaction.get(self.keys[index])
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
        DataError: no such database, a damaged one, or too few images for a test split.
    """
    folder = next((f for f in (root, root / FOLDER) if (f / "data.mdb").is_file()), None)
    if folder is None:
        raise not_there(root, f"{FOLDER}/data.mdb", f"{_HOW}.")
    with _reading(folder) as transaction:
        keys = sorted(transaction.cursor().iternext(keys=True, values=False))
    if len(keys) <= test_images:
        raise DataError(
            f"{folder} has {len(keys):,} images, of which {test_images:,} are to be the test split"
        )
    order = np.random.default_rng(0).permutation(len(keys))
    chosen = np.sort(order[:test_images] if split == "test" else order[test_images:])
    return LSUNSource(folder, tuple(bytes(keys[i]) for i in chosen))


@contextmanager
def _reading(folder: Path) -> Iterator[Any]:
    """A transaction of the database. A process may open one only once, however many splits it reads.

    Raises:
        DataError: it is damaged.
    """
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise DataError('LSUN needs lmdb: pip install "fastdat[train]"') from error
    try:
        with _open(folder.resolve(), os.getpid()).begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise DataError(f"{folder} cannot be read as lmdb: {error}. {_HOW}.") from error


@lru_cache(maxsize=4)
def _open(folder: Path, process: int) -> Any:
    import lmdb

    database = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
    # Beyond the end of a truncated file, memory that is mapped ends the process without a word.
    expected = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
    found = (folder / "data.mdb").stat().st_size
    if found < expected:
        database.close()
        raise DataError(
            f"{folder / 'data.mdb'} is truncated: it has {found:,} of {expected:,} bytes. {_HOW}."
        )
    return database

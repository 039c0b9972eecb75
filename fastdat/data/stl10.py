"""STL-10 (Coates et al. 2011) in the publisher's ``stl10_binary`` layout.

The paper trains on the 100,000 unlabelled images and tests on the 8,000 of the test split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastdat.data.download import Archive
from fastdat.data.source import ArraySource, how_to_download, not_there
from fastdat.util.errors import DataError

FOLDER = "stl10_binary"
ARCHIVE = Archive(
    url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    folder=FOLDER,
)
_FILES = {"train": "unlabeled_X.bin", "test": "test_X.bin"}
_COUNTS = {"train": 100_000, "test": 8_000}
_SHAPE = (3, 96, 96)  # channels first, and each channel column by column


def open_stl10(root: Path, split: str, count: int | None = None) -> ArraySource:
    """One split, memory-mapped: 100,000 or 8,000 images (N, 3, 96, 96), without labels.

    Raises:
        DataError: no such folder, or a file of another size than published (``count`` images where given).
    """
    name = _FILES[split]
    folder = next((f for f in (root, root / FOLDER) if (f / name).is_file()), None)
    if folder is None:
        raise not_there(root, f"{FOLDER}/{name}", how_to_download("stl10", "STL-10 (2.5 GiB)", root, FOLDER))
    path, one = folder / name, int(np.prod(_SHAPE))
    expected = _COUNTS[split] if count is None else count
    size = path.stat().st_size
    if size != expected * one:
        raise DataError(
            f"{path} has {size:,} bytes; expected {expected * one:,} ({expected:,} images). It is truncated or another "
            f"file. Remove {folder} and run: fastdat data download stl10 {folder.parent}"
        )
    images = np.memmap(path, np.uint8, mode="r", shape=(expected, *_SHAPE)).transpose(0, 1, 3, 2)
    return ArraySource(images, np.zeros(expected, np.int64))

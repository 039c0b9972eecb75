"""STL-10 (Coates et al. 2011) in the publisher's ``stl10_binary`` layout.

As in the paper, the train split is the 100,000 unlabelled images, and the test split the publisher's 8,000 test images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastdat.data.download import Archive
from fastdat.data.publisher import download_advice, find_folder, missing, repair_advice
from fastdat.data.source import ArraySource
from fastdat.util.errors import DataError

FOLDER = "stl10_binary"
ARCHIVE = Archive(
    url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    folder=FOLDER,
)
_FILES = {"train": "unlabeled_X.bin", "test": "test_X.bin"}
COUNTS = {"train": 100_000, "test": 8_000}
_SHAPE = (3, 96, 96)  # channels first; the file stores each channel column by column


def open_stl10(root: Path, split: str, count: int | None = None) -> ArraySource:
    """One split, memory-mapped: 100,000 or 8,000 images (N, 3, 96, 96), without labels.

    Raises:
        DataError: the folder is missing, or the file does not have the published size (``count`` images, if given).
    """
    name = _FILES[split]
    folder = find_folder(root, FOLDER, lambda folder: (folder / name).is_file())
    if folder is None:
        raise missing(root, f"{FOLDER}/{name}", download_advice("stl10", "STL-10 (2.5 GiB)", root, FOLDER))
    path, image_bytes = folder / name, int(np.prod(_SHAPE))
    expected = COUNTS[split] if count is None else count
    size = path.stat().st_size
    if size != expected * image_bytes:
        raise DataError(
            f"{path} has {size:,} bytes; expected {expected * image_bytes:,} ({expected:,} images). It is truncated "
            f"or another file. {repair_advice('stl10', path, FOLDER)}"
        )
    images = np.memmap(path, np.uint8, mode="r", shape=(expected, *_SHAPE)).transpose(0, 1, 3, 2)
    return ArraySource(images, np.zeros(expected, np.int64))

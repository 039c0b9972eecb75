"""CIFAR-100 (Krizhevsky 2009) in the publisher's ``cifar-100-python`` layout, read without running its pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastdat.data import cifar10
from fastdat.data.download import Archive
from fastdat.data.source import ArraySource, how_to_download, not_there

FOLDER = "cifar-100-python"
ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",  # the one printed on the publisher's page
    folder=FOLDER,
)
_COUNTS = {"train": 50_000, "test": 10_000}
_LAYOUT = cifar10.Layout(classes=100, labels="fine_labels", names="fine_label_names", dataset="cifar100")


def open_cifar100(root: Path, split: str) -> ArraySource:
    """One split: 50,000 or 10,000 images (N, 3, 32, 32), fine labels.

    Raises:
        DataError: no such folder, or a file that is missing, damaged or not as published.
    """
    folder = next(
        (f for f in (root, root / FOLDER) if (f / "meta").is_file() or (f / "train").is_file()), None
    )
    if folder is None:
        raise not_there(
            root, f"{FOLDER} with meta", how_to_download("cifar100", "CIFAR-100 (161 MiB)", root, FOLDER)
        )
    classes = cifar10.read_classes(folder / "meta", _LAYOUT)
    images, labels = cifar10.read_batch(folder / split, _LAYOUT, count=_COUNTS[split])
    return ArraySource(images, np.asarray(labels, np.int64), classes)

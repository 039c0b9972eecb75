"""CIFAR-100 (Krizhevsky 2009) in the publisher's ``cifar-100-python`` layout, read without executing its pickles."""

from __future__ import annotations

from pathlib import Path

from fastdat.data import cifar10
from fastdat.data.download import Archive
from fastdat.data.publisher import download_advice, find_folder, missing
from fastdat.data.source import ArraySource

FOLDER = "cifar-100-python"
ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",  # the one printed on the publisher's page
    folder=FOLDER,
)
_COUNTS = {"train": 50_000, "test": 10_000}
_LAYOUT = cifar10.Layout(
    classes=100, labels="fine_labels", names="fine_label_names", dataset="cifar100", folder=FOLDER
)


def open_cifar100(root: Path, split: str) -> ArraySource:
    """One split: 50,000 or 10,000 images (N, 3, 32, 32) with the fine labels.

    Raises:
        DataError: a folder or file is missing, damaged or not as published.
    """
    folder = find_folder(root, FOLDER, lambda f: (f / "meta").is_file() or (f / "train").is_file())
    if folder is None:
        advice = download_advice("cifar100", "CIFAR-100 (161 MiB)", root, FOLDER)
        raise missing(root, f"{FOLDER} with meta", advice)
    classes = cifar10.read_classes(folder / "meta", _LAYOUT)
    images, labels = cifar10.read_batch(folder / split, _LAYOUT, count=_COUNTS[split])
    return ArraySource(images, labels, classes)

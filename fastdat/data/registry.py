"""Data sets by name: how each is read, and where its publisher offers it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastdat.data import cifar10
from fastdat.data.download import Archive
from fastdat.data.images import ImageSet

#: Reader of each set's training split, from the folder given.
TRAIN_READERS: dict[str, Callable[[str | Path], ImageSet]] = {"cifar10": cifar10.load_cifar10}

#: What ``fastdat data download`` knows.
ARCHIVES: dict[str, Archive] = {"cifar10": cifar10.ARCHIVE}

"""CIFAR-10 (Krizhevsky 2009) in the publisher's ``cifar-10-batches-py`` layout, read without executing its pickles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fastdat.data import inert_pickle
from fastdat.data.download import Archive
from fastdat.data.image_set import ImageSet
from fastdat.data.publisher import download_advice, find_folder, missing, repair_advice
from fastdat.data.source import ArraySource
from fastdat.util.errors import DataError

Split = Literal["train", "test"]

FOLDER = "cifar-10-batches-py"
ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    md5="c58f30108f718f92721af3b95e74349a",  # the one printed on the publisher's page
    folder=FOLDER,
)

_FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_META = "batches.meta"
_IMAGES_PER_FILE = 10_000
_SHAPE = (3, 32, 32)  # each row of data is one image, CHW


@dataclass(frozen=True)
class Layout:
    """The number of classes, and the keys in the pickles of CIFAR-10 or CIFAR-100.

    Args:
        classes: number of classes.
        labels: key of the labels in a batch file.
        names: key of the class names in the meta file.
        dataset: the data set's name for ``fastdat data download``.
        folder: the publisher's name of the folder.
    """

    classes: int
    labels: str
    names: str
    dataset: str
    folder: str


_LAYOUT = Layout(classes=10, labels="labels", names="label_names", dataset="cifar10", folder=FOLDER)


def load_cifar10(root: str | Path, split: Split = "train") -> ImageSet:
    """Read one split of CIFAR-10.

    Args:
        root: the folder ``cifar-10-batches-py``, or its parent.
        split: ``"train"`` (50,000 images) or ``"test"`` (10,000).

    Returns:
        Images (N, 3, 32, 32) uint8, labels (N,) int64 and the ten class names.

    Raises:
        DataError: a folder or file is missing, damaged or not as published.
        ValueError: unknown split.
    """
    if split not in _FILES:
        raise ValueError(f"CIFAR-10 has the splits 'train' and 'test'; got split={split!r}")
    source = open_cifar10(Path(root), split)
    return ImageSet(
        name=f"cifar10 {split}",
        images=torch.from_numpy(source.images),
        labels=torch.from_numpy(source.labels),
        classes=source.classes,
    )


def open_cifar10(root: Path, split: str) -> ArraySource:
    """One split of CIFAR-10 as a source.

    Raises:
        DataError: as for :func:`load_cifar10`.
    """
    folder = find_folder(root, FOLDER, lambda f: (f / _META).is_file() or (f / _FILES["train"][0]).is_file())
    if folder is None:
        advice = download_advice("cifar10", "CIFAR-10 (163 MiB)", root, FOLDER)
        raise missing(root, f"{FOLDER} with {_META}", advice)
    classes = read_classes(folder / _META, _LAYOUT)
    batches = [read_batch(folder / name, _LAYOUT, _IMAGES_PER_FILE) for name in _FILES[split]]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return ArraySource(images, labels, classes)


def read_batch(path: Path, layout: Layout, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (count, 3, 32, 32) and labels (count,) of one batch file.

    Raises:
        DataError: the file is missing, damaged or not as published.
    """
    content = _read_dict(path, ("data", layout.labels), layout)
    data, labels = inert_pickle.byte_array(content["data"]), content[layout.labels]
    expected = (count, int(np.prod(_SHAPE)))
    if data is None:
        raise _unexpected(path, "data", f"a uint8 array of shape {expected}", "something else", layout)
    if data.shape != expected:
        raise _unexpected(path, "data", f"shape {expected}", str(data.shape), layout)
    if not isinstance(labels, list) or len(labels) != count:
        found = f"{len(labels)} of them" if isinstance(labels, list) else type(labels).__name__
        raise _unexpected(path, layout.labels, f"a list of {count} integers", found, layout)
    wrong = next((k for k in labels if type(k) is not int or not 0 <= k < layout.classes), None)
    if wrong is not None:
        raise _unexpected(
            path, layout.labels, f"integers from 0 to {layout.classes - 1}", inert_pickle.shown(wrong), layout
        )
    return data.reshape(-1, *_SHAPE), np.array(labels, np.int64)


def read_classes(path: Path, layout: Layout) -> tuple[str, ...]:
    """The class names, from the meta file.

    Raises:
        DataError: the file is missing, damaged or not as published.
    """
    names = _read_dict(path, (layout.names,), layout)[layout.names]
    names = [inert_pickle.text(name) for name in names] if isinstance(names, list) else names
    right = (
        isinstance(names, list) and len(names) == layout.classes and all(isinstance(n, str) for n in names)
    )
    if not right:
        raise _unexpected(
            path, layout.names, f"{layout.classes} class names", inert_pickle.shown(names), layout
        )
    return tuple(names)


def _read_dict(path: Path, required: tuple[str, ...], layout: Layout) -> dict[Any, Any]:
    """The dict pickled in ``path``, whose keys must include those ``required``."""
    if not path.is_file():
        raise DataError(f"{path} is missing. {repair_advice(layout.dataset, path, layout.folder)}")
    content = inert_pickle.read(path)
    if not isinstance(content, dict):
        raise _unexpected(path, "its content", "a dict", type(content).__name__, layout)
    content = {inert_pickle.text(key): value for key, value in content.items()}
    for key in required:
        if key not in content:
            raise _unexpected(path, repr(key), "to be there", f"the keys {sorted(map(str, content))}", layout)
    return content


def _unexpected(path: Path, what: str, expected: str, found: str, layout: Layout) -> DataError:
    return DataError(
        f"{path}: {what}: expected {expected}, found {found}. {repair_advice(layout.dataset, path, layout.folder)}"
    )

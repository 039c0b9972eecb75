"""A packed data set: a folder of memory-mapped uint8 images that training reads without decoding anything.

``store.json`` is the index: it describes the store and holds one SHA-256 per block of images. ``train.images.npy``
(N, C, H, W) uint8 and ``train.labels.npy`` (N,) int64 are plain NumPy files, and so are those of ``test``.
:mod:`fastdat.data.packing` writes stores.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fastdat.data import image_set
from fastdat.data.image_set import ImageSet, block_digest, blocks
from fastdat.util.errors import DataError

FORMAT = 1
INDEX = "store.json"


def is_store(path: Path) -> bool:
    """Whether ``path`` is a packed data set."""
    return (path / INDEX).is_file()


class Store:
    """The packed data set in the folder ``path``. Packing puts it there only when it is complete.

    Args:
        path: the folder.

    Raises:
        DataError: there is no store, it has another format, or its index is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not is_store(self.path):
            raise DataError(f"{self.path} is no packed data set: it has no {INDEX}")
        try:
            self.index: dict[str, Any] = json.loads((self.path / INDEX).read_text(encoding="utf-8"))
            found = self.index.get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise self._error(f"{self.path / INDEX} is damaged: {error}") from error
        if found != FORMAT:
            raise self._error(f"{self.path} is a store of format {found!r}; this version reads {FORMAT}")

    def split(self, split: str, dataset: str, resolution: int) -> ImageSet:
        """The images of ``split``, memory-mapped.

        Raises:
            DataError: the store holds another data set or resolution, has no such split, or its files are damaged.
        """
        index = self.index
        if (index["dataset"], index["resolution"]) != (dataset, resolution):
            raise DataError(
                f"{self.path} holds {index['dataset']} at {index['resolution']} pixels; "
                f"expected {dataset} at {resolution}"
            )
        if split not in index["splits"]:
            raise self._error(f"{self.path} has no {split} split; it has: {', '.join(index['splits'])}")
        return ImageSet(
            name=f"{dataset} {split}",
            images=read_only_tensor(self.images(split)),
            labels=torch.from_numpy(self.labels(split)),
            classes=tuple(index["classes"]),
            digest=index["splits"][split]["fingerprint"],
        )

    def images(self, split: str) -> NDArray[np.uint8]:
        """Images (N, C, H, W) of ``split``, mapped for reading only.

        Raises:
            DataError: the file is missing or truncated, or has another shape than the index says.
        """
        count, resolution = self.index["splits"][split]["count"], self.index["resolution"]
        shape = (count, self.index["channels"], resolution, resolution)
        return self._load(f"{split}.images.npy", "uint8", shape, mmap_mode="r")

    def labels(self, split: str) -> NDArray[np.int64]:
        """Labels (N,) of ``split``, in memory.

        Raises:
            DataError: as for :meth:`images`.
        """
        return self._load(
            f"{split}.labels.npy", "int64", (self.index["splits"][split]["count"],), mmap_mode=None
        )

    def damaged(self) -> Iterator[str]:
        """Read every image and label, and describe each difference from the index in one line."""
        for split, facts in self.index["splits"].items():
            images, labels = self.images(split), self.labels(split)
            digests = zip_longest(map(block_digest, blocks(images)), facts["blocks"])
            for i, (found, expected) in enumerate(digests):
                if found != expected:
                    first = i * image_set.BLOCK
                    last = min(first + image_set.BLOCK, len(images)) - 1
                    yield f"{split}: block {i} (images {first} to {last}) has changed since it was packed"
            if block_digest(labels) != facts["labels"]:
                yield f"{split}: the labels have changed since they were packed"

    def _load(
        self, name: str, dtype: str, shape: tuple[int, ...], mmap_mode: Literal["r"] | None
    ) -> NDArray[Any]:
        path = self.path / name
        try:
            array: NDArray[Any] = np.load(path, mmap_mode=mmap_mode)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError) as error:
            raise self._error(f"{path} is damaged: {error}") from error
        if (array.dtype, array.shape) != (np.dtype(dtype), shape):
            raise self._error(f"{path} holds {array.dtype} {array.shape}; expected {dtype} {shape}")
        return array

    def _error(self, problem: str) -> DataError:
        """An error that packing again repairs."""
        return DataError(f"{problem}. Remove {self.path} and pack the data set again.")


def read_only_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """A tensor that shares memory with ``images``, which are mapped for reading only. Never write to it.

    A writable map would count against the machine's memory, so a store larger than memory could not be opened.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(images)

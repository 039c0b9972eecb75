"""A packed data set: one folder of memory-mapped uint8 images that training reads without decoding anything.

``store.json`` says what it is and holds a SHA-256 for each block of images; ``train.images.npy`` (N, C, H, W) uint8 and
``train.labels.npy`` (N,) int64 are plain NumPy files, and so are those of ``test``. :mod:`fastdat.data.packing`
makes it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastdat.data.decode import BLOCK, ImageSet, block_digest
from fastdat.util.errors import DataError

FORMAT = 1
INDEX = "store.json"
_AGAIN = "Remove {} and pack the data set again."


def is_store(path: Path) -> bool:
    """Whether ``path`` is a packed data set."""
    return (path / INDEX).is_file()


class Store:
    """A packed data set in ``path``, complete by construction: packing puts it in place only when it is.

    Raises:
        DataError: none, one of another version, or files that do not fit its index.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not is_store(self.path):
            raise DataError(f"{self.path} is no packed data set: it has no {INDEX}")
        try:
            self.index: dict[str, Any] = json.loads((self.path / INDEX).read_text(encoding="utf-8"))
            found = self.index.get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{self.path / INDEX} is damaged: {error}. {_AGAIN.format(self.path)}") from error
        if found != FORMAT:
            raise DataError(
                f"{self.path} is a store of format {found!r}; this version reads {FORMAT}. "
                f"{_AGAIN.format(self.path)}"
            )

    def split(self, split: str, dataset: str, resolution: int) -> ImageSet:
        """Its images of ``split``, memory-mapped.

        Raises:
            DataError: it holds another data set, size or no such split, or its files are damaged.
        """
        index = self.index
        if (index["dataset"], index["resolution"]) != (dataset, resolution):
            raise DataError(
                f"{self.path} holds {index['dataset']} at {index['resolution']} pixels; "
                f"expected {dataset} at {resolution}"
            )
        if split not in index["splits"]:
            raise DataError(
                f"{self.path} has no {split} split; it has: {', '.join(index['splits'])}. "
                f"{_AGAIN.format(self.path)}"
            )
        images, labels = self.arrays(split)
        return ImageSet(
            name=f"{dataset} {split}",
            images=_tensor(images),
            labels=torch.from_numpy(labels),
            classes=tuple(index["classes"]),
            digest=index["splits"][split]["fingerprint"],
        )

    def arrays(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images and labels of ``split``, the images memory-mapped.

        Raises:
            DataError: a file that is missing, truncated or of another shape than the index says.
        """
        count = self.index["splits"][split]["count"]
        shape = (count, self.index["channels"], self.index["resolution"], self.index["resolution"])
        images = self._load(f"{split}.images.npy", "uint8", shape, "r")
        labels = self._load(f"{split}.labels.npy", "int64", (count,), None)
        return images, labels

    def damaged(self) -> Iterator[str]:
        """What differs from the index, a line each: every image and label is read."""
        for split, facts in self.index["splits"].items():
            images, labels = self.arrays(split)
            for i, digest in enumerate(facts["blocks"]):
                if block_digest(images[i * BLOCK : (i + 1) * BLOCK]) != digest:
                    last = min((i + 1) * BLOCK, len(images)) - 1
                    yield f"{split}: block {i} (images {i * BLOCK} to {last}) has changed since it was packed"
            if block_digest(labels) != facts["labels"]:
                yield f"{split}: the labels have changed since they were packed"

    def _load(self, name: str, dtype: str, shape: tuple[int, ...], mode: Any) -> NDArray[Any]:
        path = self.path / name
        try:
            array: NDArray[Any] = np.load(path, mmap_mode=mode)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError) as error:
            raise DataError(f"{path} is damaged: {error}. {_AGAIN.format(self.path)}") from error
        if (array.dtype, array.shape) != (np.dtype(dtype), shape):
            raise DataError(
                f"{path} holds {array.dtype} {array.shape}; expected {dtype} {shape}. "
                f"{_AGAIN.format(self.path)}"
            )
        return array


def _tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """A memory map as a tensor, which nothing ever writes to: it is mapped for reading only.

    A map that could be written to would count against the machine's memory, so that a larger set could not be opened.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(images)

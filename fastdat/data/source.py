"""Sources: one split of a data set in its publisher's layout, read image by image in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastdat.data.image_files import Pixels, decode
from fastdat.util.errors import DataError

_HASHED_TOGETHER = 4096  # images: bounds the memory that an identity needs


class Source(Protocol):
    """Images of one split, each decoded when it is read."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels index them. A source without classes gives every image the label 0."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Pixels, int]:
        """Image (H, W, C) in the publisher's size, and its label.

        Raises:
            UnreadableImage: this one image is damaged.
        """
        ...

    def name_of(self, index: int) -> str:
        """A name by which a person finds the image."""
        ...

    def part(self, start: int, stop: int) -> Source:
        """Images ``start`` to ``stop`` alone, small enough to send to another process."""
        ...

    def identity(self) -> str:
        """Hex digest that tells these images from others without decoding them, wherever they are stored.

        Raises:
            DataError: an image has disappeared.
        """
        ...


def digest_of(parts: Iterable[str | bytes]) -> str:
    """SHA-256 of all parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part)
    return digest.hexdigest()


@dataclass(frozen=True)
class ArraySource:
    """Images (N, C, H, W) in memory or memory-mapped; ``first`` is the number of the first one, for names."""

    images: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    first: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Pixels, int]:
        return self.images[index].transpose(1, 2, 0), int(self.labels[index])

    def name_of(self, index: int) -> str:
        return f"image {self.first + index}"

    def part(self, start: int, stop: int) -> ArraySource:
        return ArraySource(self.images[start:stop], self.labels[start:stop], self.classes, self.first + start)

    def identity(self) -> str:
        """Digest of labels and pixels."""
        digest = hashlib.sha256(self.labels.tobytes())
        for start in range(0, len(self), _HASHED_TOGETHER):
            digest.update(np.ascontiguousarray(self.images[start : start + _HASHED_TOGETHER]).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class FileSource:
    """Image files, decoded to RGB; ``paths`` are relative to ``root``."""

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> tuple[Pixels, int]:
        return decode(self.root / self.paths[index]), self.labels[index]

    def name_of(self, index: int) -> str:
        return self.paths[index]

    def part(self, start: int, stop: int) -> FileSource:
        return replace(self, paths=self.paths[start:stop], labels=self.labels[start:stop])

    def identity(self) -> str:
        """Digest of paths, labels and file sizes. A replaced image rarely has the same size to the byte."""
        files = zip(self.paths, self.labels, strict=True)
        return digest_of(f"{path}\t{label}\t{self._size(path)}\n" for path, label in files)

    def _size(self, path: str) -> int:
        try:
            return (self.root / path).stat().st_size
        except OSError as error:
            raise DataError(f"{self.root / path} cannot be read: {error.strerror or error}") from error

"""Checksums of what was appended to a split's files, computed from memory: what the disk holds must equal them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdat.data import image_set, npy
from fastdat.data.image_set import combined_digest


class Checksums:
    """SHA-256 of the images appended so far, one per block, and of all labels.

    Args:
        shape: (C, H, W) of the images.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._finished: list[str] = []
        self._block, self._in_block = hashlib.sha256(), 0
        self._labels = hashlib.sha256()

    def append(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Include images (n, C, H, W) and labels (n,)."""
        self._labels.update(np.ascontiguousarray(labels, npy.LABELS).data)
        while len(images):
            room = image_set.BLOCK - self._in_block
            part, images = images[:room], images[room:]
            self._block.update(np.ascontiguousarray(part).data)
            self._in_block += len(part)
            if self._in_block == image_set.BLOCK:
                self._finished.append(self._block.hexdigest())
                self._block, self._in_block = hashlib.sha256(), 0

    def entries(self) -> dict[str, Any]:
        """The checksums in the index: of blocks and labels, and the fingerprint of all images so far."""
        blocks = self._finished + ([self._block.hexdigest()] if self._in_block else [])
        return {
            "blocks": blocks,
            "labels": self._labels.hexdigest(),
            "fingerprint": combined_digest(self._shape, blocks),
        }

    def copy(self) -> Checksums:
        """Another object in the same state."""
        other = Checksums(self._shape)
        other._finished = list(self._finished)
        other._block, other._in_block = self._block.copy(), self._in_block
        other._labels = self._labels.copy()
        return other

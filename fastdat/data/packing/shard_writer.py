"""Shards that grow: images are appended to the last one, and the next one is begun when it is full."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastdat.data import npy
from fastdat.data.image_layout import ImageFiles
from fastdat.data.packing.npy_writer import NpyWriter


class ShardWriter:
    """Appends images to the shards of a split; a context manager that closes the open one.

    Args:
        files: of the split; they are shards.
        count: images to keep of existing shards, which have at least so many; the rest is cut off.
    """

    def __init__(self, files: ImageFiles, count: int) -> None:
        assert files.shard is not None
        self._files, self._shard, self.count = files, files.shard, count
        self._open: BinaryIO | None = None
        kept = {files.path(file) for file in range(len(files.counts(count)))}
        for path in files.folder.glob(files.pattern):
            if path not in kept:  # of a run that was killed
                path.unlink()
        if count % self._shard:
            self._begin(count // self._shard)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()

    def append(self, items: NDArray[Any]) -> None:
        """Write images (n, C, H, W) at the end."""
        while len(items):
            file, rest = divmod(self.count, self._shard)
            if self._open is None or rest == 0:
                self._begin(file)
            part, items = items[: self._shard - rest], items[self._shard - rest :]
            assert self._open is not None
            self._open.write(np.ascontiguousarray(part, npy.IMAGES).data)
            self.count += len(part)

    def make_durable(self) -> None:
        """Wait until the disk has everything written so far."""
        if self._open is not None:
            self._open.flush()
            os.fsync(self._open.fileno())

    def finish(self) -> None:
        """Complete the files: shards have no header, so nothing is left to write."""
        self.make_durable()

    def _begin(self, file: int) -> None:
        """Open a shard behind the images to keep, after the one before is on the disk."""
        self.make_durable()
        if self._open is not None:
            self._open.close()
        path, end = self._files.path(file), self.count % self._shard * self._files.image_bytes
        self._open = path.open("r+b" if path.exists() else "w+b")
        self._open.truncate(end)
        self._open.seek(end)


def image_writer(files: ImageFiles, count: int) -> NpyWriter | ShardWriter:
    """Appends to the images of a split, in one file or in shards; arguments as in :class:`ShardWriter`."""
    if files.shard is None:
        return NpyWriter(files.first, npy.IMAGES, files.shape, count)
    return ShardWriter(files, count)

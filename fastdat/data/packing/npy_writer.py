"""A NumPy file that grows: data is appended, and the header follows when the number of items is known."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdat.data import npy


class NpyWriter:
    """Appends items to the .npy file ``path``; a context manager that closes it.

    Args:
        path: the file; created if ``count`` is 0.
        descr: NumPy's name of the items' type, with the byte order.
        item_shape: shape of one item.
        count: items to keep of an existing file, which has at least so many; the rest is cut off.
    """

    def __init__(self, path: Path, descr: str, item_shape: tuple[int, ...], count: int) -> None:
        self._dtype, self._item_shape = np.dtype(descr), item_shape
        self.count = count
        end = npy.HEADER_BYTES + count * math.prod(item_shape) * self._dtype.itemsize
        self._file = path.open("r+b" if path.exists() else "w+b")
        if path.stat().st_size < npy.HEADER_BYTES:
            self._file.write(bytes(npy.HEADER_BYTES))
        self._file.truncate(end)
        self._file.seek(end)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, items: NDArray[Any]) -> None:
        """Write ``items`` (n, *item_shape) at the end."""
        self._file.write(np.ascontiguousarray(items, self._dtype).data)
        self.count += len(items)

    def make_durable(self) -> None:
        """Wait until the disk has everything written so far."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Complete the file: write the header for the present number of items."""
        self._file.seek(0)
        self._file.write(npy.header(self._dtype.str, (self.count, *self._item_shape)))
        self.make_durable()

"""A NumPy file that grows: data is appended, and the header follows when the number of items is known."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastdat.util.errors import DataError

_HEADER_BYTES = 128  # size of the header that NumPy writes for images and labels, however many


class NpyWriter:
    """Appends items to the .npy file ``path``; a context manager that closes it.

    Args:
        path: the file; created if ``count`` is 0.
        dtype: of the items.
        item_shape: shape of one item.
        count: items to keep of an existing file; the rest is cut off.

    Raises:
        DataError: the file holds fewer items than ``count``.
    """

    def __init__(self, path: Path, dtype: DTypeLike, item_shape: tuple[int, ...], count: int) -> None:
        self._dtype, self._item_shape = np.dtype(dtype), item_shape
        self.count = count
        end = _HEADER_BYTES + count * math.prod(item_shape) * self._dtype.itemsize
        # Filling the gap with zeros would be worse: no checksum computed later could tell them from data.
        if count and (not path.exists() or path.stat().st_size < end):
            raise DataError(f"{path} is shorter than its journal says. Remove {path.parent} and pack again.")
        self._file = path.open("r+b" if path.exists() else "w+b")
        if path.stat().st_size < _HEADER_BYTES:
            self._file.write(bytes(_HEADER_BYTES))
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

    def write_header(self) -> None:
        """Complete the file: write the header for the present number of items."""
        fields = {
            "descr": self._dtype.str,
            "fortran_order": False,
            "shape": (self.count, *self._item_shape),
        }
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, fields)
        assert self._file.tell() == _HEADER_BYTES, "NumPy pads the header for a growing number of items"
        self.make_durable()

"""Files mapped one after another into one range of addresses: their bytes are one array, and nothing is read.

Python's ``mmap`` chooses the address of each map by itself. So the system's own function is called: it reserves a range
as long as all files together, then lays each file over its part of the range.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PROT_NONE = 0  # <bits/mman-linux.h>; the module mmap does not name these two
_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64),
)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class _Range:
    """A range of addresses, which is given back when no array uses it any more."""

    def __init__(self, size: int) -> None:
        self.address = _map(None, size, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (self.address, True),  # for reading only
        }
        # Not at exit: a thread may be reading then, and the system gives everything back anyway.
        weakref.finalize(self, _LIBC.munmap, self.address, size).atexit = False


def joined(files: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """The bytes of several files as one array (total,), mapped for reading only.

    Args:
        files: open file descriptors, which may be closed afterwards, each with the bytes to map of it: a multiple of
            ``mmap.PAGESIZE`` for all but the last.

    Raises:
        ValueError: a file has fewer bytes, or its part does not fill whole pages.
        OSError: the system refuses.
    """
    for number, (descriptor, size) in enumerate(files):
        if os.fstat(descriptor).st_size < size:  # reading there would kill the process
            raise ValueError(f"file {number} has fewer than {size:,} bytes")
        if size % mmap.PAGESIZE and number < len(files) - 1:
            raise ValueError(f"file {number}: {size:,} bytes are no multiple of {mmap.PAGESIZE:,}, a page")
    whole = _Range(sum(size for _, size in files))
    start = whole.address
    for descriptor, size in files:
        _map(start, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
        start += size
    return np.asarray(whole)


def _map(address: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    found: int = _LIBC.mmap(address, size, protection, flags, descriptor, 0)
    if found == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return found

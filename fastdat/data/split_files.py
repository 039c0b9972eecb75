"""The two files of one split of a store: every byte is compared with the index before anything is used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastdat.data import image_set, npy
from fastdat.data.image_set import combined_digest
from fastdat.util.errors import DataError

#: Bytes that a thread reads at once. More do not help, and a block may be larger than memory.
CHUNK = 1 << 20
#: Threads that compute checksums, at most. A few of them are faster than any disk.
MOST_THREADS = 8

Checked = Callable[[int, int], None]
"""Called by the calling thread after each block with the images checked and the images in all."""


class DamagedError(DataError):
    """The files are not those that the index describes."""


class SplitFiles:
    """The images and labels of a split.

    Args:
        folder: the store.
        split: name of the split.
        shape: (C, H, W) of its images.
        facts: the split's entry in the index.
    """

    def __init__(self, folder: Path, split: str, shape: tuple[int, int, int], facts: dict[str, Any]) -> None:
        self._split, self._shape, self._facts = split, shape, facts
        self._count: int = facts["count"]
        self._images, self._labels = npy.files_of(folder, split)

    def checked(self, progress: Checked | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
        """Read every byte, and return what was read: the images mapped for reading only, labels and fingerprint.

        Returns:
            Images (N, C, H, W); labels (N,) in memory; the fingerprint, computed from the images' bytes.

        Raises:
            DamagedError: a file is missing, or differs from the index. It names the first difference.
            DataError: a file cannot be read.
        """
        labels = self._checked_labels()
        found: list[str] = []
        with self._open_images() as file:
            # Closing ends the threads before the file that they read is closed.
            with closing(self._differences(file, found, progress)) as differences:
                first = next(differences, None)
            if first is not None:
                raise DamagedError(first)
            try:
                # The same open file: one that is put in its place meanwhile is not used.
                images = np.memmap(file, np.uint8, "r", npy.HEADER_BYTES, (self._count, *self._shape))
            except OSError as error:
                raise _unreadable(self._images, error) from error
            except ValueError as error:
                raise DamagedError(f"{self._images} has become shorter while it was read") from error
        return images, labels, combined_digest(self._shape, found)

    def damage(self, progress: Checked | None = None) -> Iterator[str]:
        """Read every byte, and describe each difference from the index in one line."""
        try:
            self._checked_labels()
        except DataError as error:
            yield str(error)
        try:
            with self._open_images() as file, closing(self._differences(file, [], progress)) as differences:
                yield from differences
        except DataError as error:
            yield str(error)

    def _checked_labels(self) -> NDArray[np.int64]:
        with _open(self._labels, npy.LABELS, (self._count,)) as file:
            try:
                raw = bytearray(file.read())  # torch warns about arrays that are not writable
            except OSError as error:
                raise _unreadable(self._labels, error) from error
        if hashlib.sha256(raw).hexdigest() != self._facts["labels"]:
            raise DamagedError(
                f"{self._split}: the labels in {self._labels} have changed since they were packed"
            )
        return np.frombuffer(raw, npy.LABELS)

    def _open_images(self) -> BinaryIO:
        return _open(self._images, npy.IMAGES, (self._count, *self._shape))

    def _differences(
        self, file: BinaryIO, found: list[str], progress: Checked | None
    ) -> Generator[str, None, None]:
        """Compare the images with the index; append the digest of each block to ``found``."""
        for i, digest in enumerate(_digests(file, self._count, math.prod(self._shape))):
            stop = min((i + 1) * image_set.BLOCK, self._count)
            block = f"block {i} (images {i * image_set.BLOCK} to {stop - 1}) of {self._images}"
            if isinstance(digest, OSError):
                yield f"{self._split}: {block} cannot be read: {digest.strerror or digest}"
            else:
                if digest != self._facts["blocks"][i]:
                    yield f"{self._split}: {block} has changed since it was packed"
                found.append(digest)
            if progress is not None:
                progress(stop, self._count)
        if (
            found == self._facts["blocks"]
            and combined_digest(self._shape, found) != self._facts["fingerprint"]
        ):
            yield f"{self._split}: the index has a fingerprint that is not that of the images"


def checking_threads() -> int:
    """Number of threads that compute checksums: one per core that this process may use, and not many."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def _digests(file: BinaryIO, count: int, image_bytes: int) -> Iterator[str | OSError]:
    """SHA-256 of each block of images, or why it cannot be read. Reading and hashing release the interpreter lock."""
    descriptor = file.fileno()

    def digest(first: int) -> str | OSError:
        stop = min(first + image_set.BLOCK, count)
        try:
            return _digest(descriptor, npy.HEADER_BYTES + first * image_bytes, (stop - first) * image_bytes)
        except OSError as error:
            return error

    pool = ThreadPoolExecutor(checking_threads(), thread_name_prefix="fastdat-checksums")
    try:
        yield from pool.map(digest, range(0, count, image_set.BLOCK))
    finally:
        pool.shutdown(cancel_futures=True)


def _digest(descriptor: int, start: int, size: int) -> str:
    """SHA-256 of ``size`` bytes of a file from ``start`` on, of fewer if it ends before.

    They are read, not mapped: a mapped file that cannot be read or becomes shorter kills the process.
    """
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(size, CHUNK)))
    while size:
        read = os.preadv(descriptor, [buffer[:size]], start)
        if not read:
            break
        digest.update(buffer[:read])
        start, size = start + read, size - read
    return digest.hexdigest()


def _open(path: Path, descr: str, shape: tuple[int, ...]) -> BinaryIO:
    """The file, placed after its header. Its size and header are as expected.

    Raises:
        DamagedError: they are not, or there is no such file.
        DataError: the file cannot be read.
    """
    expected = npy.HEADER_BYTES + math.prod(shape) * np.dtype(descr).itemsize
    try:
        if not path.is_file():
            raise DamagedError(f"{path} is no file" if path.exists() else f"{path} is missing")
        size = path.stat().st_size
        if size != expected:
            raise DamagedError(f"{path} has {size:,} bytes; expected {expected:,}")
        file = path.open("rb")
        try:
            if file.read(npy.HEADER_BYTES) != npy.header(descr, shape):
                raise DamagedError(f"the header of {path} has changed since it was packed")
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise _unreadable(path, error) from error
    return file


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}. Check its permissions and its disk.")

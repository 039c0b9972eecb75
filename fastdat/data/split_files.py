"""The files of one split of a store: every byte is compared with the index before anything is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdat.data import image_set, npy
from fastdat.data.image_layout import ImageFiles
from fastdat.data.image_set import combined_digest
from fastdat.data.joined_map import joined
from fastdat.data.shared_check import sharers
from fastdat.util.errors import DataError
from fastdat.util.ranks import ONE_PROCESS, Ranks

#: Bytes that a thread reads at once. More do not help, and a block may be larger than memory.
CHUNK = 1 << 20
#: Threads that compute checksums, at most. A few of them are faster than any disk.
MOST_THREADS = 8

Checked = Callable[[int, int], None]
"""Called by the calling thread after each block with the images that it has checked and those it has to check."""


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
        self._images = ImageFiles(folder, split, shape, facts["shard_images"])
        self._labels = npy.files_of(folder, split)[1]

    def checked(
        self, progress: Checked | None = None, ranks: Ranks | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], str]:
        """Compare every byte with the index, and return what was compared: images, labels and fingerprint.

        Args:
            progress: called after each block that this process has compared.
            ranks: processes that all call this now. Those that see the same files compare a part of the blocks each,
                and each learns what any of them found.

        Returns:
            Images (N, C, H, W), mapped for reading only; labels (N,) in memory; the images' fingerprint.

        Raises:
            DamagedError: a file is missing, or differs from the index. It names the first difference.
            DataError: a file cannot be read.
        """
        ranks = ranks or ONE_PROCESS
        with ExitStack() as stack:
            labels, files = ranks.together(lambda: (self._checked_labels(), self._open_images(stack)))
            together = sharers(ranks, files[0].fileno())
            part = _Part(together.index(ranks.rank), len(together))
            ranks.together(lambda: self._require_unchanged(files, part, progress))
            images = ranks.together(lambda: self._mapped(files))
            return images, labels, self._facts["fingerprint"]

    def damage(self, progress: Checked | None = None) -> Iterator[str]:
        """Read every byte, and describe each difference from the index in one line."""
        try:
            self._checked_labels()
        except DataError as error:
            yield str(error)
        try:
            with ExitStack() as stack:
                files = self._open_images(stack)
                with closing(self._differences(files, _Part(), progress)) as differences:
                    yield from differences
        except DataError as error:
            yield str(error)

    def _checked_labels(self) -> NDArray[np.int64]:
        header, size = npy.header(npy.LABELS, (self._count,)), self._count * np.dtype(npy.LABELS).itemsize
        with _open(self._labels, header, size) as file:
            labels = np.zeros(self._count, npy.LABELS)  # filled in place: a copy of millions is tens of MB
            try:
                read = file.readinto(labels.data.cast("B"))
            except OSError as error:
                raise _unreadable(self._labels, error) from error
        if read != labels.nbytes or hashlib.sha256(labels.data).hexdigest() != self._facts["labels"]:
            raise DamagedError(
                f"{self._split}: the labels in {self._labels} have changed since they were packed"
            )
        return labels

    def _open_images(self, stack: ExitStack) -> list[BinaryIO]:
        """The files with the images, which ``stack`` closes."""
        header = self._images.header(self._count)
        return [
            stack.enter_context(_open(self._images.path(i), header, n * self._images.image_bytes))
            for i, n in enumerate(self._images.counts(self._count))
        ]

    def _mapped(self, files: Sequence[BinaryIO]) -> NDArray[np.uint8]:
        """The images. They are of the same open files: one that is put in the place of one meanwhile is not used."""
        try:
            if self._images.shard is None:
                return np.memmap(files[0], np.uint8, "r", npy.HEADER_BYTES, (self._count, *self._shape))
            sizes = [n * self._images.image_bytes for n in self._images.counts(self._count)]
            pixels = joined([(file.fileno(), size) for file, size in zip(files, sizes, strict=True)])
            return pixels.reshape(self._count, *self._shape)
        except OSError as error:
            raise _unreadable(self._images.first, error) from error
        except ValueError as error:
            raise DamagedError(f"{self._images.first} has become shorter while it was read") from error

    def _require_unchanged(self, files: Sequence[BinaryIO], part: _Part, progress: Checked | None) -> None:
        # Closing ends the threads before the files that they read are closed.
        with closing(self._differences(files, part, progress)) as differences:
            first = next(differences, None)
        if first is not None:
            raise DamagedError(first)

    def _differences(
        self, files: Sequence[BinaryIO], part: _Part, progress: Checked | None
    ) -> Generator[str, None, None]:
        """Compare blocks of images with the index: all, or this process's part of them."""
        blocks, done = self._blocks(part), 0
        expected, total = self._facts["blocks"], sum(block.count for block in blocks)
        for block, digest in zip(blocks, _digests(files, blocks, part), strict=True):
            stop = block.first + block.count
            name = f"block {block.number} (images {block.first} to {stop - 1}) of {block.path}"
            if isinstance(digest, OSError):
                yield f"{self._split}: {name} cannot be read: {digest.strerror or digest}"
            elif digest != expected[block.number]:
                yield f"{self._split}: {name} has changed since it was packed"
            done += block.count
            if progress is not None:
                progress(done, total)
        if combined_digest(self._shape, expected) != self._facts["fingerprint"]:
            yield f"{self._split}: the index has a fingerprint that is not that of the images"

    def _blocks(self, part: _Part) -> list[_Block]:
        blocks = []
        for number in range(part.turn, len(self._facts["blocks"]), part.of):
            first = number * image_set.BLOCK
            count = min(image_set.BLOCK, self._count - first)
            file, start = self._images.place(first)
            size = count * self._images.image_bytes
            blocks.append(_Block(number, first, count, file, self._images.path(file), start, size))
        return blocks


class _Part(NamedTuple):
    """Of the blocks, every ``of``-th from number ``turn`` on."""

    turn: int = 0
    of: int = 1


@dataclass(frozen=True)
class _Block:
    """Images with one checksum: which they are, and the bytes ``start`` to ``start + size`` of a file."""

    number: int
    first: int
    count: int
    file: int
    path: Path
    start: int
    size: int


def checking_threads(processes: int = 1) -> int:
    """Number of threads that compute checksums, for each of the processes that share this one's cores.

    One per core, and not many.
    """
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // processes))


def _digests(files: Sequence[BinaryIO], blocks: Sequence[_Block], part: _Part) -> Iterator[str | OSError]:
    """SHA-256 of each block, or why it cannot be read. Reading and hashing release the interpreter lock."""
    descriptors = [file.fileno() for file in files]

    def digest(block: _Block) -> str | OSError:
        try:
            return _digest(descriptors[block.file], block.start, block.size)
        except OSError as error:
            return error

    pool = ThreadPoolExecutor(checking_threads(part.of), thread_name_prefix="fastdat-checksums")
    try:
        yield from pool.map(digest, blocks)
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


def _open(path: Path, header: bytes, size: int) -> BufferedReader:
    """The file, placed after its header. Its size and header are as expected.

    Raises:
        DamagedError: they are not, or there is no such file.
        DataError: the file cannot be read.
    """
    expected = len(header) + size
    try:
        if not path.is_file():
            raise DamagedError(f"{path} is no file" if path.exists() else f"{path} is missing")
        found = path.stat().st_size
        if found != expected:
            raise DamagedError(f"{path} has {found:,} bytes; expected {expected:,}")
        file = path.open("rb")
        try:
            if file.read(len(header)) != header:
                raise DamagedError(f"the header of {path} has changed since it was packed")
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise _unreadable(path, error) from error
    return file


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}. Check its permissions and its disk.")

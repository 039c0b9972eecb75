"""The journal of a partial store: how far its files are valid, and which images they were made from."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdat.data import npy
from fastdat.data.image_files import UnreadableImage
from fastdat.data.image_layout import ImageFiles
from fastdat.data.packing.checksums import Checksums
from fastdat.data.packing.pieces import Skipped
from fastdat.data.source import Source
from fastdat.util import files, sealed_json

JOURNAL = "journal.jsonl"

_KEYS = {"split", "start", "stop", "count", "identity", "skipped", "fingerprint", "labels"}
_READ_BYTES = 4 << 20  # of images, at once
_LOGGER = logging.getLogger("fastdat")


class Journal:
    """One line for each time that the files of ``split`` were made durable.

    A line covers the images from ``start`` to ``stop`` of the source. It holds how many of them were written, their
    identity, the skipped ones, and the checksums of all that the split's files held then. It carries a checksum of its
    own. Reading stops at the first line that is damaged, or that no longer matches the source or the files: an image
    has changed, a skipped image can be read by now, or the disk gives back other bytes than were written. These images
    and all after them are packed again; what is damaged is told as a warning of the logger ``fastdat``.

    Args:
        folder: the partial store.
        split: the split this object is about; the file has the lines of every split.
        source: the images of the split.
        images: the files with the packed images.
    """

    def __init__(self, folder: Path, split: str, source: Source, images: ImageFiles) -> None:
        self._path, self._split, self._source, self._images = folder / JOURNAL, split, source, images
        self.done = 0
        """Number of images of the source that are packed: either written or skipped."""
        self.count = 0
        """Number of images written."""
        self.skipped: list[Skipped] = []
        """The images skipped."""
        self.checksums = Checksums(images.shape)
        """Of the images written and their labels. Whoever appends to the files appends to these too."""
        self._read()

    def _read(self) -> None:
        """Read the lines that are still valid, and drop the others of this split from the file.

        A last line without its end, left by a kill, is dropped too.
        """
        raw = self._path.read_bytes() if self._path.exists() else b""
        *complete, _ = raw.split(b"\n")
        kept, valid = [], True
        for number, text in enumerate(complete, 1):
            line = _unsealed(text)
            if line is None:
                _LOGGER.warning("line %d of %s is damaged and not used", number, self._path)
                continue  # the next line of its split does not follow the one before it, and is not used either
            if line["split"] == self._split:
                valid = valid and self._matches_source(line) and self._take(line)
                if not valid:
                    continue
            kept.append(text + b"\n")
        remaining = b"".join(kept)
        if remaining != raw:
            files.write_atomically(self._path, remaining)

    def _matches_source(self, line: dict[str, Any]) -> bool:
        """Whether packing these images again would give the same result."""
        if line["stop"] > len(self._source):
            return False
        unchanged = self._source.part(line["start"], line["stop"]).identity() == line["identity"]
        return unchanged and not any(_readable(self._source, number) for number, _, _ in line["skipped"])

    def _take(self, line: dict[str, Any]) -> bool:
        """Count what ``line`` covers as packed, if it follows the line before it and the files hold what it says."""
        checksums = self.checksums.copy()
        try:
            for images, labels in self._written(line["count"]):
                checksums.append(images, labels)
            unchanged = _of(checksums) == _of(line)
        except OSError:
            unchanged = False
        if line["start"] != self.done or not unchanged:  # other starts come from two processes in one folder
            _LOGGER.warning(
                "%s: the %s files are not what %s says; packing again from image %d on",
                self._path.parent, self._split, JOURNAL, self.done,
            )  # fmt: skip
            return False
        self.done, self.count, self.checksums = line["stop"], self.count + line["count"], checksums
        self.skipped += [Skipped(*skipped) for skipped in line["skipped"]]
        return True

    def _written(self, count: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """The next ``count`` images and labels in the files, few at a time; fewer if the files are shorter."""
        image_bytes, label_bytes = self._images.image_bytes, np.dtype(npy.LABELS).itemsize
        most = max(1, _READ_BYTES // image_bytes)
        with npy.files_of(self._path.parent, self._split)[1].open("rb") as labels:
            labels.seek(npy.HEADER_BYTES + self.count * label_bytes)
            for first in range(0, count, most):
                n = min(most, count - first)
                pixels, numbers = self._images.read(self.count + first, n), labels.read(n * label_bytes)
                if (len(pixels), len(numbers)) != (n * image_bytes, n * label_bytes):
                    return
                yield (
                    np.frombuffer(pixels, np.uint8).reshape(n, *self._images.shape),
                    np.frombuffer(numbers, npy.LABELS),
                )

    def add(self, done: int, count: int, skipped: list[Skipped]) -> None:
        """Record that the first ``done`` images are packed: ``count`` are on the disk, the others are ``skipped``."""
        newly_skipped = skipped[len(self.skipped) :]
        line = {
            "split": self._split,
            "start": self.done,
            "stop": done,
            "count": count - self.count,
            "identity": self._source.part(self.done, done).identity(),
            "skipped": newly_skipped,
            **_of(self.checksums),
        }
        with self._path.open("ab") as file:
            file.write(sealed_json.seal(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done, self.count = done, count
        self.skipped += newly_skipped


def _of(checksums: Checksums | dict[str, Any]) -> dict[str, Any]:
    """The checksums that a line holds: of all images and all labels in the files at that time."""
    entries = checksums.entries() if isinstance(checksums, Checksums) else checksums
    return {"fingerprint": entries["fingerprint"], "labels": entries["labels"]}


def _unsealed(text: bytes) -> dict[str, Any] | None:
    """The content of a line, or None if it is damaged."""
    try:
        line = sealed_json.unseal(text)
    except sealed_json.SealError:
        return None
    return line if line.keys() == _KEYS and _is_line(line) else None


def _is_line(line: dict[str, Any]) -> bool:
    """Whether each entry is of its type: a digest says that a line is as it was written, and not who wrote it."""
    start, stop, count, skipped = (line[key] for key in ("start", "stop", "count", "skipped"))
    return (
        all(type(number) is int for number in (start, stop, count))
        and 0 <= start <= stop
        and 0 <= count <= stop - start
        and all(isinstance(line[key], str) for key in ("split", "identity", "fingerprint", "labels"))
        and isinstance(skipped, list)
        and all(isinstance(one, list) and list(map(type, one)) == [int, str, str] for one in skipped)
        and all(start <= one[0] < stop for one in skipped)
    )


def _readable(source: Source, index: int) -> bool:
    try:
        source.read(index)
    except UnreadableImage:
        return False
    return True

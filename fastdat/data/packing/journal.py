"""The journal of a partial store: how far its files are valid, and which images they were made from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fastdat.data.image_files import UnreadableImage
from fastdat.data.packing.pieces import Skipped
from fastdat.data.source import Source
from fastdat.util import files
from fastdat.util.errors import DataError

JOURNAL = "journal.jsonl"


class Journal:
    """One line for each time that the files of ``split`` were made durable.

    A line covers the images from ``start`` to ``stop`` of the source. It holds how many of them were written, their
    identity, and the skipped ones. Reading the journal stops at the first line that no longer matches the source: an
    image has changed, or a skipped image can be read by now. These images and all after them are packed again.

    Args:
        folder: the partial store.
        split: the split this object is about; the file has the lines of every split.
        source: the images of the split.

    Raises:
        DataError: two processes have written the journal.
    """

    def __init__(self, folder: Path, split: str, source: Source) -> None:
        self._path, self._split, self._source = folder / JOURNAL, split, source
        self.done = 0
        """Number of images of the source that are packed: either written or skipped."""
        self.count = 0
        """Number of images written."""
        self.skipped: list[Skipped] = []
        """The images skipped."""
        self._read()

    def _read(self) -> None:
        """Read the lines that are still valid, and drop the others of this split from the file.

        A last line without its end, left by a kill, is dropped too.
        """
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        complete = text[: text.rfind("\n") + 1]
        kept, valid, expected_start = [], True, 0
        for line in map(json.loads, complete.splitlines()):
            if line["split"] == self._split:
                if line["start"] != expected_start:
                    raise DataError(f"{self._path} is damaged. Remove {self._path.parent} and pack again.")
                expected_start = line["stop"]
                valid = valid and self._matches_source(line)
                if not valid:
                    continue
                self.done, self.count = line["stop"], self.count + line["count"]
                self.skipped += [Skipped(*skipped) for skipped in line["skipped"]]
            kept.append(line)
        remaining = "".join(json.dumps(line) + "\n" for line in kept)
        if remaining != text:
            files.write_atomically(self._path, remaining.encode())

    def _matches_source(self, line: dict[str, Any]) -> bool:
        """Whether packing these images again would give the same result."""
        unchanged = self._source.part(line["start"], line["stop"]).identity() == line["identity"]
        return unchanged and not any(_readable(self._source, number) for number, _, _ in line["skipped"])

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
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done, self.count = done, count
        self.skipped += newly_skipped


def _readable(source: Source, index: int) -> bool:
    try:
        source.read(index)
    except UnreadableImage:
        return False
    return True

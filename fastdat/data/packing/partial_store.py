"""The folder ``DEST.partial`` that packing works in: locked, described by a plan, moved into place when complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastdat.data.packing.journal import JOURNAL
from fastdat.data.store import INDEX
from fastdat.util import files, sealed_json
from fastdat.util.errors import DataError

_PLAN, _LOCK = "plan.json", ".lock"
_LABEL_BYTES = 8


class PartialStore:
    """The incomplete store that becomes ``dest``.

    Args:
        dest: where :meth:`publish` moves it.
    """

    def __init__(self, dest: Path) -> None:
        self._dest = dest
        self.path = dest.with_name(dest.name + ".partial")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and keep other processes out of it. The lock ends with the process, even a killed one.

        Raises:
            DataError: another process is packing into it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if files.lock(descriptor) is False:
                raise DataError(f"another process is packing into {self.path}")
            yield
        finally:
            os.close(descriptor)

    def begin(self, plan: dict[str, Any], image_bytes: int) -> None:
        """Record ``plan`` in an empty folder, or check that the folder was started with the same plan.

        Args:
            plan: what the store will hold; becomes part of its index.
            image_bytes: size of one packed image.

        Raises:
            DataError: another plan, a damaged one, a folder that packing did not create, or not enough room on the
                disk.
        """
        recorded = self.path / _PLAN
        if recorded.exists():
            differs = difference(self._recorded_plan(), plan)
            if differs:
                raise DataError(
                    f"{self.path} was started with other settings: {differs}. Run the first command again to resume, "
                    "or remove the folder to start anew."
                )
        elif any(
            entry.name not in (_LOCK, files.temporary_of(recorded).name) for entry in self.path.iterdir()
        ):
            raise DataError(
                f"{self.path} is in the way: it has no {_PLAN}, so either fastdat data pack did not make it or it "
                "is damaged. Remove it and pack again."
            )
        self._require_room(plan, image_bytes)
        sealed_json.write(recorded, plan)

    def _recorded_plan(self) -> dict[str, Any]:
        path = self.path / _PLAN
        try:
            return sealed_json.read(path)
        except sealed_json.SealError as error:
            raise DataError(f"{path} is damaged: {error}. Remove {self.path} and pack again.") from error

    def publish(self, index: dict[str, Any]) -> None:
        """Write the index and move the complete store into place."""
        sealed_json.write(self.path / INDEX, index)
        os.rename(self.path, self._dest)
        remove_working_files(self._dest)

    def _require_room(self, plan: dict[str, Any], image_bytes: int) -> None:
        """Refuse to start work that cannot be completed."""
        images = sum(plan["items"].values())
        written = sum(f.stat().st_size for f in self.path.iterdir() if f.suffix in (".npy", ".u8"))
        needed = images * (image_bytes + _LABEL_BYTES) - written
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise DataError(
                f"{self.path.parent} has {free / 2**20:,.0f} MiB of room, and {needed / 2**20:,.0f} MiB are needed "
                f"for {images:,} images of {plan['resolution']} pixels. Make room, or pack elsewhere."
            )


def remove_working_files(store: Path) -> None:
    """Remove the files that packing needs and a store does not."""
    for name in (JOURNAL, _PLAN):
        (store / name).unlink(missing_ok=True)
        files.temporary_of(store / name).unlink(missing_ok=True)
    (store / _LOCK).unlink(missing_ok=True)


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How the entries of ``now`` differ from those before, in words; empty if they are equal."""
    keys = [key for key in now if before.get(key) != now[key]]
    shown = [f"{key} was {before.get(key)!r}, is now {now[key]!r}" for key in keys if key != "identity"]
    if "identity" in keys and not shown:
        shown = ["it has the same number of images, but other images"]
    return ", ".join(shown)

"""Packing a data set into a store: in parallel, restartable at any moment, in place only when it is complete.

Work goes on in ``DEST.partial``: blocks of images are decoded by several processes and appended in order, and after
each block a line in ``journal.jsonl`` says how far the files are good and what was left out. A run that was killed goes
on after the last such line and writes what an uninterrupted one would have written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from fastdat.data.errors import DataError
from fastdat.data.images import BLOCK, block_digest, combined_digest
from fastdat.data.registry import SPLITS, dataset_spec, open_split, resolution_of
from fastdat.data.source import RESIZE, Pixels, Source, UnreadableImage, resized
from fastdat.data.store import FORMAT, INDEX, Store, is_store
from fastdat.files import write_atomically

#: Share of a split that may be unreadable; more is a wrong folder or a broken disk rather than a few bad files.
MOST_UNREADABLE = 0.1
_HEADER = 128  # bytes before the data of our .npy files, room for any shape
_JOURNAL, _PLAN = "journal.jsonl", "plan.json"

Progress = Callable[[str, int, int, int], None]
"""Called after each block with the split, images done, images in all and images left out so far."""


@dataclass(frozen=True)
class Packed:
    """What :func:`pack` did: the store, and the images it left out as (split, name, reason)."""

    store: Store
    skipped: list[tuple[str, str, str]]


def pack(
    dataset: str,
    source: str | Path,
    dest: str | Path,
    *,
    resolution: int | None = None,
    splits: tuple[str, ...] = SPLITS,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Pack ``source``, a data set as its publisher lays it out, into the store ``dest``.

    Args:
        dataset: a name of :data:`fastdat.data.registry.DATASETS`.
        source: folder with the publisher's files.
        dest: folder to make; one that holds this very store already is left as it is.
        resolution: height and width; what the paper trains at where None.
        splits: which.
        workers: processes that decode; one a core where None, none (in this process) where 0. They are started anew, so
            that a script which calls this needs ``if __name__ == "__main__":`` around the call.
        progress: told after each block.

    Raises:
        DataError: data missing or damaged, too much of it unreadable, a destination that is taken, no room on the disk.
    """
    spec, source, dest = dataset_spec(dataset), Path(source), Path(dest)
    size = resolution_of(spec, resolution)
    plan = {"dataset": dataset, "resolution": size, "channels": spec.channels, "splits": list(splits)}
    if dest.exists():
        return Packed(_finished(dest, plan), [])
    sources = {split: open_split(spec, source, split) for split in splits}
    partial = dest.with_name(dest.name + ".partial")
    plan |= {"format": FORMAT, "resize": RESIZE, "items": {split: len(s) for split, s in sources.items()}}
    try:
        _begin(partial, plan)
        _require_room(partial, plan)
        with _Pool(workers) as pool:
            facts = {
                split: _pack_split(partial, split, sources[split], plan, pool, progress or _quiet)
                for split in splits
            }
        index = {**plan, "classes": list(sources[splits[0]].classes), "splits": facts}
        write_atomically(partial / INDEX, json.dumps(index, indent=1).encode())
        for name in (_JOURNAL, _PLAN):
            (partial / name).unlink()
        os.rename(partial, dest)
    except OSError as error:
        raise DataError(
            f"cannot write {dest}: {error.strerror or error}. What was packed so far is kept in {partial}: the "
            "same command goes on from there."
        ) from error
    skipped = [(split, name, reason) for split in splits for name, reason in facts[split]["skipped"]]
    return Packed(Store(dest), skipped)


def there(dataset: str, source: str | Path) -> tuple[str, ...]:
    """The splits that ``source`` has.

    Raises:
        DataError: not even train.
    """
    spec, found = dataset_spec(dataset), []
    for split in SPLITS:
        try:
            open_split(spec, Path(source), split)
        except DataError:
            if split == "train":
                raise
        else:
            found.append(split)
    return tuple(found)


def _finished(dest: Path, plan: dict[str, Any]) -> Store:
    """The store that is in ``dest`` already.

    Raises:
        DataError: something else is.
    """
    if not is_store(dest):
        raise DataError(f"{dest} exists and is no packed data set. Give another destination, or remove it.")
    store = Store(dest)
    there = {key: store.index[key] for key in plan if key != "splits"} | {
        "splits": list(store.index["splits"])
    }
    if there != plan:
        raise DataError(f"{dest} holds another store: {there}; asked for {plan}. Give another destination.")
    return store


def _begin(partial: Path, plan: dict[str, Any]) -> None:
    """Make ``partial``, or see that it was begun with this very plan."""
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / _PLAN
    if not path.exists():
        if any(entry.name != f".{_PLAN}.tmp" for entry in partial.iterdir()):
            raise DataError(f"{partial} is in the way and was not made by fastdat data pack. Remove it.")
        write_atomically(path, json.dumps(plan).encode())
    begun = json.loads(path.read_text(encoding="utf-8"))
    if begun != plan:
        differing = ", ".join(
            f"{key} {begun.get(key)!r} then, {plan[key]!r} now" for key in plan if begun.get(key) != plan[key]
        )
        raise DataError(f"{partial} was begun otherwise: {differing}. Go on as it was begun, or remove it.")


def _require_room(partial: Path, plan: dict[str, Any]) -> None:
    """Refuse to begin what cannot end."""
    image = plan["channels"] * plan["resolution"] ** 2
    needed = sum(plan["items"].values()) * (image + 8)
    there = sum(file.stat().st_size for file in partial.glob("*.npy"))
    free = shutil.disk_usage(partial).free
    if needed - there > free:
        raise DataError(
            f"{partial.parent} has {free / 2**20:,.0f} MiB of room, and {(needed - there) / 2**20:,.0f} MiB are needed "
            f"for {sum(plan['items'].values()):,} images of {plan['resolution']} pixels. Make room, or pack elsewhere."
        )


def _pack_split(
    partial: Path, split: str, source: Source, plan: dict[str, Any], pool: _Pool, progress: Progress
) -> dict[str, Any]:
    """Append block after block to the split's files; returns its entry in the index."""
    channels, size = plan["channels"], plan["resolution"]
    journal = _Journal(partial / _JOURNAL, split)
    done = journal.read()
    count = sum(block["count"] for block in done)
    skipped = [entry for block in done for entry in block["skipped"]]
    starts = range(len(done) * BLOCK, len(source), BLOCK)
    work = ((source.part(start, min(start + BLOCK, len(source))), size) for start in starts)
    with (
        _array_file(partial / f"{split}.images.npy", count * channels * size * size) as images,
        _array_file(partial / f"{split}.labels.npy", count * 8) as labels,
    ):
        for part in pool.map(_decode_block, work, len(starts)):
            images.write(part.images.tobytes())
            labels.write(part.labels.tobytes())
            for file in (images, labels):
                file.flush()
                os.fsync(file.fileno())  # before the journal says so
            journal.add(len(part.labels), part.skipped)
            count += len(part.labels)
            skipped += part.skipped
            done_items = min((journal.blocks) * BLOCK, len(source))
            progress(split, done_items, len(source), len(skipped))
            if (
                len(skipped) > max(MOST_UNREADABLE * len(source), 1)
                and len(skipped) > MOST_UNREADABLE * done_items
            ):
                name, reason = skipped[-1]
                raise DataError(
                    f"{len(skipped)} of the first {done_items} images of {split} cannot be read, the last {name}: "
                    f"{reason}. This looks like a wrong folder or a broken disk; nothing was put in place."
                )
        if not count:
            raise DataError(f"no image of the {split} split can be read")
        _finish_array(images, (count, channels, size, size), np.uint8)
        _finish_array(labels, (count,), np.int64)
    return {"count": count, "items": len(source), "skipped": skipped, **_digests(partial, split)}


def _digests(partial: Path, split: str) -> dict[str, Any]:
    """Of what lies on the disk, in blocks: what a reader will see, and not what was meant to be written."""
    images = np.load(partial / f"{split}.images.npy", mmap_mode="c")
    labels = np.load(partial / f"{split}.labels.npy")
    blocks = [block_digest(torch.from_numpy(images[i : i + BLOCK])) for i in range(0, len(images), BLOCK)]
    return {
        "blocks": blocks,
        "labels": block_digest(torch.from_numpy(labels)),
        "fingerprint": combined_digest(images.shape[1:], blocks),
    }


# --- decoding ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    images: Pixels
    labels: NDArray[np.int64]
    skipped: list[list[str]]


def _decode_block(work: tuple[Source, int]) -> _Part:
    """A source's images, resized; those that cannot be read left out and listed."""
    source, size = work
    images, labels, skipped = [], [], []
    for i in range(len(source)):
        try:
            image, label = source.read(i)
        except UnreadableImage as error:
            skipped.append([source.name_of(i), str(error)])
            continue
        images.append(resized(image, size).transpose(2, 0, 1))
        labels.append(label)
    stacked = np.stack(images) if images else np.empty((0,), np.uint8)
    return _Part(stacked, np.array(labels, np.int64), skipped)


class _Pool:
    """Processes that decode ahead of the writer, by a bounded number of blocks; results come in order."""

    def __init__(self, workers: int | None) -> None:
        self._count = (os.cpu_count() or 1) if workers is None else workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Pool:
        if self._count:
            # Started anew, not forked: the parent may hold threads and open databases.
            self._pool = ProcessPoolExecutor(self._count, mp_context=get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Any], _Part], work: Iterable[Any], count: int) -> Iterator[_Part]:
        if self._pool is None or count < 2:  # not worth a process
            yield from map(function, work)
            return
        ahead: list[Future[_Part]] = []
        try:
            for item in work:
                ahead.append(self._pool.submit(function, item))
                if len(ahead) > 2 * self._count:
                    yield ahead.pop(0).result()
            while ahead:
                yield ahead.pop(0).result()
        except BrokenProcessPool as error:
            raise DataError("a decoding process died, for want of memory perhaps: try --workers 1") from error


# --- files -------------------------------------------------------------------------------------------------------


class _Journal:
    """One line a block: its split, how many images it gave, and those left out."""

    def __init__(self, path: Path, split: str) -> None:
        self._path, self._split = path, split
        self.blocks = 0

    def read(self) -> list[dict[str, Any]]:
        """The blocks that are done; a line that a kill cut short is dropped from the file, too."""
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            write_atomically(self._path, whole.encode())
        lines = [json.loads(line) for line in whole.splitlines()]
        done = [line for line in lines if line["split"] == self._split]
        self.blocks = len(done)
        return done

    def add(self, count: int, skipped: list[list[str]]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"split": self._split, "count": count, "skipped": skipped}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.blocks += 1


def _array_file(path: Path, size: int) -> BinaryIO:
    """A .npy file open for appending, its first ``size`` bytes of data kept."""
    file = path.open("r+b" if path.exists() else "w+b")
    if path.stat().st_size < _HEADER:
        file.write(bytes(_HEADER))
    file.truncate(_HEADER + size)
    file.seek(_HEADER + size)
    return file


def _finish_array(file: BinaryIO, shape: tuple[int, ...], dtype: Any) -> None:
    """Write the header, which had to wait for the number of images."""
    header = f"{{'descr': '{np.dtype(dtype).str}', 'fortran_order': False, 'shape': {shape!r}, }}".encode(
        "ascii"
    )
    magic = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    file.seek(0)
    file.write(magic + header.ljust(_HEADER - 10 - 1) + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _quiet(split: str, done: int, total: int, skipped: int) -> None:
    return None

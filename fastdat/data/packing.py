"""Packing a data set into a store: in parallel, restartable at any moment, in place only when it is complete.

Work goes on in ``DEST.partial``: blocks of images are decoded by several processes and appended in order, and after
each block a line in ``journal.jsonl`` says how far the files are good and what was left out. A run that was killed goes
on after the last such line and writes what an uninterrupted one would have written.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastdat.data.errors import DataError, NoSuchSplitError
from fastdat.data.images import BLOCK, block_digest, combined_digest
from fastdat.data.registry import SPLITS, dataset_spec, open_split, resolution_of
from fastdat.data.source import RESIZE, Pixels, Source, UnreadableImage, resized
from fastdat.data.store import FORMAT, INDEX, Store, is_store
from fastdat.files import write_atomically

#: Share of a split that may be unreadable; more is a wrong folder or a broken disk rather than a few bad files.
MOST_UNREADABLE = 0.1
_HEADER = 128  # bytes before the data of our .npy files, room for any shape
_JOURNAL, _PLAN, _LOCK = "journal.jsonl", "plan.json", ".lock"
_AHEAD_BYTES = 2 << 30  # of decoded blocks that wait to be written
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

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
    sources = {split: open_split(spec, source, split) for split in splits}
    plan = {
        "format": FORMAT,
        "dataset": dataset,
        "resolution": size,
        "channels": spec.channels,
        "resize": RESIZE,
        "items": {split: len(s) for split, s in sources.items()},
        "identity": {split: s.identity() for split, s in sources.items()},
        "source": str(source.resolve()),
    }
    if dest.exists():
        return Packed(_finished(dest, plan), [])
    partial = dest.with_name(dest.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(partial):
            _begin(partial, plan)
            _require_room(partial, plan)
            with _Pool(workers, BLOCK * spec.channels * size**2) as pool:
                facts = {
                    split: _pack_split(partial, split, sources[split], plan, pool, progress or _quiet)
                    for split in splits
                }
            index = {**plan, "classes": list(sources[splits[0]].classes), "splits": facts}
            write_atomically(partial / INDEX, json.dumps(index, indent=1).encode())
            os.rename(partial, dest)
            _tidy(dest)
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
        DataError: not all that its publisher gives, or damaged ones.
    """
    spec, found = dataset_spec(dataset), []
    for split in SPLITS:
        try:
            open_split(spec, Path(source), split)
        except NoSuchSplitError:
            continue
        found.append(split)
    return tuple(found)


def _finished(dest: Path, plan: dict[str, Any]) -> Store:
    """The store that is in ``dest`` already, of the same images wherever they were then.

    Raises:
        DataError: something else is.
    """
    if not is_store(dest):
        raise DataError(f"{dest} exists and is no packed data set. Give another destination, or remove it.")
    store = Store(dest)
    differing = _differing(store.index, {key: value for key, value in plan.items() if key != "source"})
    if differing:
        raise DataError(
            f"{dest} holds another store: {differing}. Give another destination, or remove it to pack anew."
        )
    _tidy(dest)
    return store


def _begin(partial: Path, plan: dict[str, Any]) -> None:
    """Begin in ``partial``, or see that it was begun with this very plan."""
    path = partial / _PLAN
    if not path.exists():
        if any(entry.name not in (_LOCK, f".{_PLAN}.tmp") for entry in partial.iterdir()):
            raise DataError(f"{partial} is in the way and was not made by fastdat data pack. Remove it.")
        write_atomically(path, json.dumps(plan).encode())
    differing = _differing(json.loads(path.read_text(encoding="utf-8")), plan)
    if differing:
        raise DataError(
            f"{partial} was begun otherwise: {differing}. Go on as it was begun, or remove it to begin anew."
        )


def _differing(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs, in words; nothing where nothing does."""
    keys = [key for key in now if then.get(key) != now[key]]
    shown = [f"{key} {then.get(key)!r} then, {now[key]!r} now" for key in keys if key != "identity"]
    if "identity" in keys and not shown:
        shown = ["as many images then, but others"]
    return ", ".join(shown)


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Within it no other process packs into ``partial``; the lock ends with the process, however that does.

    Raises:
        DataError: another does.
    """
    lock = os.open(partial / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(f"another process is packing into {partial}") from error
        yield
    finally:
        os.close(lock)


def _tidy(dest: Path) -> None:
    """Remove what packing needed and a store does not."""
    for name in (_JOURNAL, _PLAN, _LOCK):
        (dest / name).unlink(missing_ok=True)


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
    channels, size, total = plan["channels"], plan["resolution"], len(source)
    journal = _Journal(partial / _JOURNAL, split)
    done = journal.read(source)
    count = sum(block["count"] for block in done)
    skipped = [[name, reason] for block in done for _, name, reason in block["skipped"]]
    starts = range(len(done) * BLOCK, total, BLOCK)
    work = ((source.part(start, min(start + BLOCK, total)), start, size, channels) for start in starts)
    with (
        _array_file(partial / f"{split}.images.npy", count * channels * size * size) as images,
        _array_file(partial / f"{split}.labels.npy", count * 8) as labels,
    ):
        for start, part in zip(starts, pool.map(_decode_block, work, len(starts)), strict=True):
            skipped += [[name, reason] for _, name, reason in part.skipped]
            done_items = min(start + BLOCK, total)
            # Before the journal says anything: what is refused here is tried again by the next run.
            _refuse_rubbish(split, skipped, done_items, total)
            images.write(np.ascontiguousarray(part.images).data)
            labels.write(part.labels.tobytes())
            for file in (images, labels):
                file.flush()
                os.fsync(file.fileno())  # before the journal says so
            journal.add(len(part.labels), part.skipped)
            count += len(part.labels)
            progress(split, done_items, total, len(skipped))
        if not count:
            raise DataError(f"no image of the {split} split can be read")
        _finish_array(images, (count, channels, size, size), np.uint8)
        _finish_array(labels, (count,), np.int64)
    return {"count": count, "items": total, "skipped": skipped, **_digests(partial, split)}


def _refuse_rubbish(split: str, skipped: list[list[str]], done: int, total: int) -> None:
    if len(skipped) > max(MOST_UNREADABLE * total, 1) and len(skipped) > MOST_UNREADABLE * done:
        name, reason = skipped[-1]
        raise DataError(
            f"{len(skipped)} of the first {done} images of {split} cannot be read, the last {name}: {reason}. "
            "This looks like a wrong folder or a broken disk; nothing was put in place."
        )


def _digests(partial: Path, split: str) -> dict[str, Any]:
    """Of what lies on the disk, in blocks: what a reader will see, and not what was meant to be written."""
    images = np.load(partial / f"{split}.images.npy", mmap_mode="r")
    labels = np.load(partial / f"{split}.labels.npy")
    blocks = [block_digest(images[i : i + BLOCK]) for i in range(0, len(images), BLOCK)]
    return {
        "blocks": blocks,
        "labels": block_digest(labels),
        "fingerprint": combined_digest(images.shape[1:], blocks),
    }


# --- decoding ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A block: images, their labels, and number, name and reason of those left out."""

    images: Pixels
    labels: NDArray[np.int64]
    skipped: list[tuple[int, str, str]]


def _decode_block(work: tuple[Source, int, int, int]) -> _Part:
    """A source's images, resized; those that cannot be read left out and listed, numbered from ``first``."""
    source, first, size, channels = work
    images = np.empty((len(source), channels, size, size), np.uint8)
    labels: list[int] = []
    skipped: list[tuple[int, str, str]] = []
    for i in range(len(source)):
        try:
            image, label = source.read(i)
        except UnreadableImage as error:
            skipped.append((first + i, source.name_of(i), str(error)))
            continue
        images[len(labels)] = resized(image, size).transpose(2, 0, 1)
        labels.append(label)
    return _Part(images[: len(labels)], np.array(labels, np.int64), skipped)


class _Pool:
    """Processes that decode ahead of the writer, by a bounded number of blocks and bytes; results come in order."""

    def __init__(self, workers: int | None, block_bytes: int) -> None:
        # Of the cores this process may use, where a scheduler gave it a few of many.
        self._count = len(os.sched_getaffinity(0)) if workers is None else workers
        self._ahead = max(1, min(2 * self._count, _AHEAD_BYTES // block_bytes))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Pool:
        if self._count:
            # Started anew, not forked: the parent may hold threads and open databases.
            self._pool = ProcessPoolExecutor(
                self._count, mp_context=get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),)
            )
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
                if len(ahead) > self._ahead:
                    yield ahead.pop(0).result()
            while ahead:
                yield ahead.pop(0).result()
        except BrokenProcessPool as error:
            raise DataError("a decoding process died, for want of memory perhaps: try --workers 1") from error


def _end_with(parent: int) -> None:
    """End this process when ``parent`` does, even by kill -9: it would wait for work for ever."""
    with suppress(OSError, AttributeError):  # Linux only; elsewhere it waits
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)


# --- files -------------------------------------------------------------------------------------------------------


class _Journal:
    """One line a block: its split and number, how many images it gave, and those left out."""

    def __init__(self, path: Path, split: str) -> None:
        self._path, self._split = path, split
        self._blocks = 0

    def read(self, source: Source) -> list[dict[str, Any]]:
        """The blocks that are done, up to one of which an image that was left out can be read by now.

        A line that a kill cut short, and those of blocks to be done again, are dropped from the file, too.
        """
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        lines = [json.loads(line) for line in whole.splitlines()]
        others = [line for line in lines if line["split"] != self._split]
        done = [line for line in lines if line["split"] == self._split]
        if [line["block"] for line in done] != list(range(len(done))):
            raise DataError(f"{self._path} is damaged. Remove {self._path.parent} and pack anew.")
        kept = list(
            takewhile(lambda line: not any(_readable(source, i) for i, _, _ in line["skipped"]), done)
        )
        self._blocks = len(kept)
        if whole != text or len(kept) < len(done):
            left = "".join(json.dumps(line) + "\n" for line in (*others, *kept))
            write_atomically(self._path, left.encode())
        return kept

    def add(self, count: int, skipped: list[tuple[int, str, str]]) -> None:
        line = {"split": self._split, "block": self._blocks, "count": count, "skipped": skipped}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._blocks += 1


def _readable(source: Source, index: int) -> bool:
    try:
        source.read(index)
    except UnreadableImage:
        return False
    return True


def _array_file(path: Path, size: int) -> BinaryIO:
    """A .npy file open for appending, its first ``size`` bytes of data kept.

    Raises:
        DataError: it has fewer.
    """
    if size and (not path.exists() or path.stat().st_size < _HEADER + size):
        raise DataError(f"{path} is shorter than its journal says. Remove {path.parent} and pack anew.")
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

"""Packing a data set into a store: in parallel, restartable at any moment, in place only when it is complete.

Work goes on in ``DEST.partial``: pieces of a few hundred images are decoded by several processes and appended in order,
and every few seconds a line in ``journal.jsonl`` says how far the files are good, of which images they were made, and
what was left out. A run that was killed goes on after the last such line whose images are still the same, and writes
what an uninterrupted one would have written.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastdat.data.decode import BLOCK, block_digest, combined_digest
from fastdat.data.registry import SPLITS, dataset_spec, open_split, resolution_of
from fastdat.data.source import RESIZE, Pixels, Source, UnreadableImage, resized
from fastdat.data.store import FORMAT, INDEX, Store, is_store
from fastdat.util import files
from fastdat.util.errors import DataError, NoSuchSplitError

#: Share of a split that may be unreadable; more is a wrong folder or a broken disk rather than a few bad files.
MOST_UNREADABLE = 0.1
_HEADER = 128  # bytes before the data of our .npy files, room for any shape
_JOURNAL, _PLAN, _LOCK = "journal.jsonl", "plan.json", ".lock"
_PIECE = 256  # images that are decoded together
_PIECE_BYTES = 64 << 20  # or as many of them as this is
_AHEAD_BYTES = 2 << 30  # of decoded pieces that wait to be written
_DURABLE_EVERY = 5.0  # seconds of work that a kill may cost; waiting for a disk more often would cost more
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

Progress = Callable[[str, int, int, int], None]
"""Called after each piece with the split, images done, images in all and images left out so far."""


@dataclass(frozen=True)
class Packed:
    """What :func:`pack` did.

    Args:
        store: what is in its place now.
        skipped: the images that were left out, as (split, name, reason).
        already: the store was there, and nothing was done.
    """

    store: Store
    skipped: list[tuple[str, str, str]]
    already: bool = False


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
        dest: folder to make; one that holds the store of these images already is left as it is. What tells files from
            others are names and sizes, so that a move or a copy does not matter.
        resolution: height and width; what the paper trains at where None.
        splits: which.
        workers: processes that decode; one a core where None, none (in this process) where 0. They are started anew, so
            that a script which calls this needs ``if __name__ == "__main__":`` around the call.
        progress: told after each piece.

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
        "source": str(source.resolve()),
    }
    identity = {split: s.identity() for split, s in sources.items()}
    if dest.exists():
        store = _finished(dest, {**plan, "identity": identity})
        return Packed(store, _skipped(store.index), already=True)
    partial = dest.with_name(dest.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(partial):
            _begin(partial, plan)
            with _Pool(workers, _piece(plan) * _image_bytes(plan)) as pool:
                facts = {
                    split: _pack_split(partial, split, sources[split], plan, pool, progress or _quiet)
                    for split in splits
                }
            classes = list(sources[splits[0]].classes)
            index = {**plan, "identity": identity, "classes": classes, "splits": facts}
            files.write_atomically(partial / INDEX, json.dumps(index, indent=1).encode())
            os.rename(partial, dest)
            _tidy(dest)
    except OSError as error:
        raise DataError(
            f"cannot write {dest}: {error.strerror or error}. What was packed so far is kept in {partial}: the "
            "same command goes on from there."
        ) from error
    store = Store(dest)
    return Packed(store, _skipped(store.index))


def _skipped(index: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(split, *left) for split, facts in index["splits"].items() for left in facts["skipped"]]


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
    """Begin in ``partial``, where there is room, or see that it was begun with this very plan."""
    path = partial / _PLAN
    if path.exists():
        differing = _differing(json.loads(path.read_text(encoding="utf-8")), plan)
        if differing:
            raise DataError(
                f"{partial} was begun otherwise: {differing}. Go on as it was begun, or remove it to begin anew."
            )
    elif any(entry.name not in (_LOCK, f".{_PLAN}.tmp") for entry in partial.iterdir()):
        raise DataError(f"{partial} is in the way and was not made by fastdat data pack. Remove it.")
    _require_room(partial, plan)
    files.write_atomically(path, json.dumps(plan).encode())


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
    descriptor = os.open(partial / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if files.lock(descriptor) is False:
            raise DataError(f"another process is packing into {partial}")
        yield
    finally:
        os.close(descriptor)


def _tidy(dest: Path) -> None:
    """Remove what packing needed and a store does not."""
    for name in (_JOURNAL, f".{_JOURNAL}.tmp", _PLAN, f".{_PLAN}.tmp", _LOCK):
        (dest / name).unlink(missing_ok=True)


def _require_room(partial: Path, plan: dict[str, Any]) -> None:
    """Refuse to begin what cannot end."""
    needed = sum(plan["items"].values()) * (_image_bytes(plan) + 8)
    there = sum(file.stat().st_size for file in partial.glob("*.npy"))
    free = shutil.disk_usage(partial).free
    if needed - there > free:
        raise DataError(
            f"{partial.parent} has {free / 2**20:,.0f} MiB of room, and {(needed - there) / 2**20:,.0f} MiB are needed "
            f"for {sum(plan['items'].values()):,} images of {plan['resolution']} pixels. Make room, or pack elsewhere."
        )


def _image_bytes(plan: dict[str, Any]) -> int:
    return int(plan["channels"] * plan["resolution"] ** 2)


def _piece(plan: dict[str, Any]) -> int:
    return max(1, min(_PIECE, _PIECE_BYTES // _image_bytes(plan)))


def _pack_split(
    partial: Path, split: str, source: Source, plan: dict[str, Any], pool: _Pool, progress: Progress
) -> dict[str, Any]:
    """Append piece after piece to the split's files; returns its entry in the index."""
    channels, size, total, piece = plan["channels"], plan["resolution"], len(source), _piece(plan)
    journal = _Journal(partial / _JOURNAL, split, source)
    journal.read()
    count, skipped = journal.count, list(journal.skipped)
    starts = range(journal.done, total, piece)
    work = ((source.part(start, min(start + piece, total)), start, size, channels) for start in starts)
    with (
        _array_file(partial / f"{split}.images.npy", count * _image_bytes(plan)) as images,
        _array_file(partial / f"{split}.labels.npy", count * 8) as labels,
    ):
        durable = time.monotonic()
        for start, part in zip(starts, pool.map(_decode_piece, work, len(starts)), strict=True):
            skipped += part.skipped
            done = min(start + piece, total)
            # Before the journal says anything: what is refused here is tried again by the next run.
            _refuse_rubbish(split, skipped, done, total)
            images.write(np.ascontiguousarray(part.images).data)
            labels.write(part.labels.tobytes())
            count += len(part.labels)
            if done == total or time.monotonic() - durable >= _DURABLE_EVERY:
                for file in (images, labels):
                    file.flush()
                    os.fsync(file.fileno())  # before the journal says so
                journal.add(done, count, skipped)
                durable = time.monotonic()
            progress(split, done, total, len(skipped))
        if not count:
            raise DataError(f"no image of the {split} split can be read")
        _finish_array(images, (count, channels, size, size), np.uint8)
        _finish_array(labels, (count,), np.int64)
    left = [[name, reason] for _, name, reason in skipped]
    return {"count": count, "items": total, "skipped": left, **_digests(partial, split)}


def _refuse_rubbish(split: str, skipped: list[_Skipped], done: int, total: int) -> None:
    if len(skipped) > max(MOST_UNREADABLE * total, 1) and len(skipped) > MOST_UNREADABLE * done:
        _, name, reason = skipped[-1]
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


_Skipped = tuple[int, str, str]
"""Number, name and reason of an image that was left out."""


@dataclass(frozen=True)
class _Part:
    """A piece: images, their labels, and those left out."""

    images: Pixels
    labels: NDArray[np.int64]
    skipped: list[_Skipped]


def _decode_piece(work: tuple[Source, int, int, int]) -> _Part:
    """A source's images, resized; those that cannot be read left out and listed, numbered from ``first``."""
    source, first, size, channels = work
    images = np.empty((len(source), channels, size, size), np.uint8)
    labels: list[int] = []
    skipped: list[_Skipped] = []
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
    """Processes that decode ahead of the writer, by a bounded number of pieces and bytes; results come in order."""

    def __init__(self, workers: int | None, piece_bytes: int) -> None:
        # Of the cores this process may use, where a scheduler gave it a few of many.
        self._count = len(os.sched_getaffinity(0)) if workers is None else workers
        self._ahead = max(1, min(2 * self._count, _AHEAD_BYTES // piece_bytes))
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
            raise DataError(
                "a decoding process died: for want of memory, of which --workers 0 takes the least; or since a script "
                'calls pack() without `if __name__ == "__main__":` around it'
            ) from error


def _end_with(parent: int) -> None:
    """End this process when ``parent`` does, even by kill -9: it would wait for work for ever."""
    with suppress(OSError, AttributeError):  # Linux only; elsewhere it waits
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)


# --- files -------------------------------------------------------------------------------------------------------


class _Journal:
    """One line each time a split's files were made durable: how far, of which images, and which were left out since."""

    def __init__(self, path: Path, split: str, source: Source) -> None:
        self._path, self._split, self._source = path, split, source
        self.done = 0
        """Images of the source that the files are made of ..."""
        self.count = 0
        """... so many of them in the files ..."""
        self.skipped: list[_Skipped] = []
        """... and these left out."""

    def read(self) -> None:
        """Take up what is done, up to an image that is another now, or was left out and can be read by now.

        A line that a kill cut short, and those of images to be done again, are dropped from the file, too.
        """
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        kept, holds, start = [], True, 0
        for line in map(json.loads, whole.splitlines()):
            if line["split"] == self._split:
                if line["start"] != start:
                    raise DataError(f"{self._path} is damaged. Remove {self._path.parent} and pack anew.")
                start = line["stop"]
                holds = holds and self._holds(line)
                if not holds:
                    continue
                self.done, self.count = line["stop"], self.count + line["count"]
                self.skipped += [(i, name, reason) for i, name, reason in line["skipped"]]
            kept.append(line)
        left = "".join(json.dumps(line) + "\n" for line in kept)
        if left != text:
            files.write_atomically(self._path, left.encode())

    def _holds(self, line: dict[str, Any]) -> bool:
        """Whether decoding these images again would give the same."""
        same = self._source.part(line["start"], line["stop"]).identity() == line["identity"]
        return same and not any(_readable(self._source, i) for i, _, _ in line["skipped"])

    def add(self, done: int, count: int, skipped: list[_Skipped]) -> None:
        """Say that the files hold ``count`` of the first ``done`` images, on the disk, and the rest was left out."""
        new = skipped[len(self.skipped) :]
        line = {
            "split": self._split,
            "start": self.done,
            "stop": done,
            "count": count - self.count,
            "identity": self._source.part(self.done, done).identity(),
            "skipped": new,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done, self.count = done, count
        self.skipped += new


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

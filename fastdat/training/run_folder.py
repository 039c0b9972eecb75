"""A run's folder: what is in it, and how it is written so that no reader ever sees half a file.

config.yaml  log.txt  stats.jsonl  metrics.jsonl  reals.png  samples/step-000500.png  checkpoints/  tensorboard/
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import weakref
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fastdat.util import files
from fastdat.util.errors import RunFolderError

CONFIG, STATS, METRICS, LOG = "config.yaml", "stats.jsonl", "metrics.jsonl", "log.txt"
#: What is there before config.yaml.
_FIRST = {".lock", LOG, f".{CONFIG}.tmp", "samples", "checkpoints", "tensorboard"}
LATEST, BEST = "checkpoints/latest.pt", "checkpoints/best.pt"


class RunFolder:
    """Writes into ``path``: a new folder, an empty one, or that of a run, which then goes on.

    One process at a time: the folder is locked until :meth:`close`, or until the process ends, however it does.

    Raises:
        RunFolderError: ``path`` holds something else, is a file, cannot be written, or another process trains in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
            begun = {".lock"} <= names <= _FIRST  # by a process that was killed, or is at work
            if names and not begun and CONFIG not in names:
                raise RunFolderError(
                    f"{self.path} is not empty and holds no run. Give another --outdir, or remove it."
                )
            # Let go of at close(), and also by a RunFolder that is dropped.
            self.close = weakref.finalize(self, _unlock, self._locked())
            for folder in ("samples", "checkpoints"):
                (self.path / folder).mkdir(exist_ok=True)
        except RunFolderError:
            raise
        except OSError as error:
            raise RunFolderError(
                f"cannot use {self.path} as a run folder: {error.strerror or error}"
            ) from error
        self.latest, self.best = self.path / LATEST, self.path / BEST

    def _locked(self) -> int:
        lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        if files.lock(lock) is False:
            os.close(lock)
            raise RunFolderError(f"another process is training in {self.path}")
        _locks.add(lock)
        return lock

    def read_config(self) -> dict[str, Any] | None:
        """What config.yaml holds; None in a new folder."""
        return read_config(self.path) if (self.path / CONFIG).exists() else None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.yaml, keys in the order given."""
        self._write(CONFIG, yaml.safe_dump(dict(config), sort_keys=False).encode())

    def write_reals(self, png: bytes) -> None:
        """reals.png: a grid of training images, to compare the samples with."""
        self._write("reals.png", png)

    def write_samples(self, step: int, png: bytes) -> Path:
        """samples/step-NNNNNN.png."""
        return self._write(f"samples/step-{step:06d}.png", png)

    def append_stats(self, stats: Mapping[str, float]) -> None:
        """One line of stats.jsonl; every number in it must be finite."""
        self._append(STATS, json.dumps(stats, allow_nan=False))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        append_metrics(self.path, record)

    def append_log(self, text: str) -> None:
        """Lines of log.txt, each with the time."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._append(LOG, "\n".join(f"{now}  {line}" for line in text.splitlines()))

    def rewind(self, step: int, *, scored: bool = True) -> None:
        """Drop what is about to be made again: lines and samples of later steps, and a half-written last line.

        Training's scores of ``step`` itself, too, unless it was ``scored``; those that `fastdat eval` made are kept.
        """

        def kept(name: str, record: Mapping[str, Any]) -> bool:
            due = name == METRICS and not scored and record["step"] == step and record.get("by") != "eval"
            return bool(record["step"] <= step and not due)

        for name in (STATS, METRICS):
            path = self.path / name
            if path.exists():
                lines = [line for line, record in _records(path) if kept(name, record)]
                self._write(name, b"".join(line + b"\n" for line in lines))
        for picture in (self.path / "samples").glob("step-*.png"):
            number = picture.stem.removeprefix("step-")
            if number.isdecimal() and int(number) > step:
                picture.unlink()

    def _append(self, name: str, line: str) -> None:
        try:
            _append_line(self.path / name, line)
        except OSError as error:
            raise self._cannot_write(name, error) from error

    def _write(self, name: str, content: bytes) -> Path:
        target = self.path / name
        try:
            files.write_atomically(target, content)
        except OSError as error:
            raise self._cannot_write(name, error) from error
        return target

    def _cannot_write(self, name: str, error: OSError) -> RunFolderError:
        kept = "its last checkpoint is intact" if self.latest.exists() else "it has no checkpoint yet"
        return RunFolderError(
            f"cannot write {self.path / name}: {error.strerror or error}. The run has stopped; {kept}. Run the same "
            "command again once that is mended."
        )


_locks: set[int] = set()


def _unlock(lock: int) -> None:
    if lock in _locks:  # not in a process that was forked meanwhile
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)  # one that is being forked now holds it open for a moment
        _forget(lock)


def _forget(lock: int) -> None:
    _locks.remove(lock)
    os.close(lock)


def _forget_all() -> None:
    """In a process forked by the one that trains, a DataLoader's say: it may live for seconds after a kill of that."""
    for lock in list(_locks):
        _forget(lock)


os.register_at_fork(after_in_child=_forget_all)


def read_config(run: Path) -> dict[str, Any]:
    """config.yaml of a run.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    path = run / CONFIG
    if not path.is_file():
        raise RunFolderError(f"{run} is no run folder: it has no {CONFIG}")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} holds no settings, but a {type(config).__name__}")
    return config


def append_metrics(run: Path, record: Mapping[str, Any]) -> None:
    """One line of a run's metrics.jsonl, also while it is being trained.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        _append_line(run / METRICS, json.dumps(record))
    except OSError as error:
        raise RunFolderError(f"cannot write {run / METRICS}: {error.strerror or error}") from error


def _append_line(path: Path, line: str) -> None:
    """Whole, or not at all; half a line that a kill or a full disk left is dropped."""
    # Opened anew each time and written at once: a killed run leaves whole lines, and no handle is kept open.
    with path.open("a+b", buffering=0) as file:
        end = _end_of_lines(file)
        rest = memoryview((line + "\n").encode())
        try:
            file.truncate(end)
            while rest:  # what a full disk takes of it is less than all, without an error
                rest = rest[file.write(rest) or 0 :]
        except OSError:
            file.truncate(end)
            raise


def _end_of_lines(file: io.FileIO) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _records(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Lines of a JSON-lines file with what they hold; a last line that a kill cut short is left out.

    Raises:
        RunFolderError: damage anywhere else.
    """
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            records.append((line, record | {"step": record["step"]}))
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):  # no newline after it
                break
            raise RunFolderError(f"{path}, line {number}, is damaged: {line[:60]!r}") from error
    return records

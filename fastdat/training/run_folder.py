"""Writes a run folder, whose files :mod:`fastdat.util.run_layout` names; a reader never sees half a file."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fastdat.training.folder_lock import lock_folder
from fastdat.util import run_layout
from fastdat.util.errors import RunFolderError
from fastdat.util.files import append_line, temporary_of, write_atomically
from fastdat.util.run_layout import (
    CHECKPOINTS,
    CONFIG,
    LOCK,
    LOG,
    METRICS,
    REALS,
    SAMPLES,
    STATS,
    TENSORBOARD,
    WANDB,
)

#: What may exist before config.yaml is written.
_FIRST = {LOCK, LOG, temporary_of(Path(CONFIG)).name, SAMPLES, CHECKPOINTS, TENSORBOARD, WANDB}


class RunFolder:
    """Writes into ``path``: a new folder, an empty one, or the folder of a run that is resumed.

    One process at a time: the folder is locked until :meth:`close` or until the process ends, for whatever reason.

    Args:
        path: the folder.
        writes: False: another process writes into it, and nothing that is written here goes anywhere.

    Raises:
        RunFolderError: ``path`` holds something else, is a file, cannot be written, or another process trains in it.
    """

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        # A relative path would mean another folder after an os.chdir of a callback.
        self.path, self._writes = Path(os.path.abspath(path)), writes
        if not writes:
            self.close: weakref.finalize[Any, Any] = weakref.finalize(self, lambda: None)
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
            begun = {LOCK} <= names <= _FIRST  # by a process that was killed, or is at work
            if names and not begun and CONFIG not in names:
                raise RunFolderError(
                    f"{self.path} is not empty and holds no run. Give another --outdir, or remove it."
                )
            self.close = lock_folder(self.path, self)
            for folder in (SAMPLES, CHECKPOINTS):
                (self.path / folder).mkdir(exist_ok=True)
        except RunFolderError:
            raise
        except OSError as error:
            raise RunFolderError(
                f"cannot use {self.path} as a run folder: {error.strerror or error}"
            ) from error

    def has_config(self) -> bool:
        """Whether there is a config.yaml, and so a run, however little of it."""
        return (self.path / CONFIG).exists()

    def read_config(self) -> dict[str, Any]:
        """The settings in config.yaml; raises :class:`RunFolderError` where it is missing or damaged."""
        return run_layout.read_config(self.path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml, keys in the given order."""
        self._write(CONFIG, yaml.safe_dump(dict(config), sort_keys=False).encode())

    def write_reals(self, png: bytes) -> None:
        """Write reals.png: a grid of training images, to compare the samples with."""
        self._write(REALS, png)

    def write_samples(self, step: int, png: bytes) -> Path:
        """Write samples/step-NNNNNN.png and return its path."""
        return self._write(run_layout.sample_file(step), png)

    def append_stats(self, stats: Mapping[str, float]) -> None:
        """Append one line to stats.jsonl; every number in it must be finite."""
        self._append(STATS, json.dumps(stats, allow_nan=False))

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self._writes:
            append_metrics(self.path, record)

    def append_log(self, text: str) -> None:
        """Append the lines of ``text`` to log.txt, each with the time."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._append(LOG, "\n".join(f"{now}  {line}" for line in text.splitlines()))

    def rewind(self, step: int, *, scored: bool = True) -> None:
        """Drop what will be made again after going back to ``step``: lines and samples of later steps.

        Half-written last lines are dropped too. So are training's scores of ``step`` itself unless ``scored``; scores
        that `fastdat eval` made are kept.
        """

        def kept(name: str, record: Mapping[str, Any]) -> bool:
            unfinished = (
                name == METRICS and not scored and record["step"] == step and record.get("by") != "eval"
            )
            return bool(record["step"] <= step and not unfinished)

        if not self._writes:
            return
        for name in (STATS, METRICS):
            path = self.path / name
            if path.exists():
                lines = [line for line, record in run_layout.read_records(path) if kept(name, record)]
                self._write(name, b"".join(line + b"\n" for line in lines))
        for of_step, file in run_layout.sample_grids(self.path):
            if of_step > step:
                file.unlink()

    def _append(self, name: str, line: str) -> None:
        if not self._writes:
            return
        try:
            append_line(self.path / name, line)
        except OSError as error:
            raise self._cannot_write(name, error) from error

    def _write(self, name: str, content: bytes) -> Path:
        target = self.path / name
        if not self._writes:
            return target
        try:
            write_atomically(target, content)
        except OSError as error:
            raise self._cannot_write(name, error) from error
        return target

    def _cannot_write(self, name: str, error: OSError) -> RunFolderError:
        kept = (
            "its last checkpoint is intact"
            if (self.path / run_layout.LATEST).exists()
            else "it has no checkpoint yet"
        )
        return RunFolderError(
            f"cannot write {self.path / name}: {error.strerror or error}. The run has stopped; {kept}. Run the same "
            "command again when the cause is removed."
        )


def append_metrics(run: Path, record: Mapping[str, Any]) -> None:
    """Append one line to a run's metrics.jsonl, also while the run is being trained.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        append_line(run / METRICS, json.dumps(record))
    except OSError as error:
        raise RunFolderError(f"cannot write {run / METRICS}: {error.strerror or error}") from error

"""What a run folder contains: the names of its files, and how their lines are read. Needs no torch.

config.yaml             settings
log.txt                 notes, each with the time
stats.jsonl             one JSON object per ``log_every`` steps
metrics.jsonl           one JSON object per scored split
attack.json             the last measurements of fastdat attack
reals.png               a grid of training images
samples/                step-000500.png, ...: grids of generated samples
checkpoints/            latest.pt, best.pt, and step-000500.pt, ...: the newest ones
checkpoints/set-aside/  what a run had after the step that it went back to (--from)
tensorboard/            event files (logger=tensorboard)
wandb/                  what wandb keeps, and the id of its run (logger=wandb)
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastdat.util import plain_json, plain_yaml
from fastdat.util.errors import RunFolderError

CONFIG = "config.yaml"
LOG = "log.txt"
STATS = "stats.jsonl"
METRICS = "metrics.jsonl"
REALS = "reals.png"
SAMPLES = "samples"
CHECKPOINTS = "checkpoints"
LATEST = f"{CHECKPOINTS}/latest.pt"
BEST = f"{CHECKPOINTS}/best.pt"
SET_ASIDE = f"{CHECKPOINTS}/set-aside"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
LOCK = ".lock"

_MOST_STEPS = 10**12  # as many digits as a name of a file has


def sample_file(step: int) -> str:
    """Name of the sample grid of a step, within the run folder."""
    return f"{SAMPLES}/step-{step:06d}.png"


def sample_grids(run: Path) -> list[tuple[int, Path]]:
    """Step and file of every sample grid, by step; files with other names are left out."""
    return _of_steps(run / SAMPLES, "png")


def snapshot_file(step: int) -> str:
    """Name of the checkpoint of a step, within the run folder."""
    return f"{CHECKPOINTS}/step-{step:06d}.pt"


def snapshots(run: Path) -> list[tuple[int, Path]]:
    """Step and file of every checkpoint that is named by its step, by step."""
    return _of_steps(run / CHECKPOINTS, "pt")


def _of_steps(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    """Step and file of every step-000500.SUFFIX, by step."""
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), file)
        for file in folder.iterdir()
        if (match := re.fullmatch(rf"step-([0-9]{{1,12}})\.{suffix}", file.name)) and file.is_file()
    ]
    return sorted(found)


def read_config(run: Path) -> dict[str, Any]:
    """The settings in config.yaml.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    path = run / CONFIG
    if not path.is_file():
        what = f"it has no {CONFIG}" if run.exists() else "it does not exist"
        raise RunFolderError(
            f"{run} is no run folder: {what}. Give a folder that `fastdat train --outdir` wrote"
        )
    try:
        config = plain_yaml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise RunFolderError(f"{path} must hold settings as key: value, but holds a {type(config).__name__}")
    return config


def read_records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every line of stats.jsonl or metrics.jsonl with the JSON object in it; nothing if there is no such file.

    A last line that a killed process left unfinished is skipped.

    Raises:
        RunFolderError: the file cannot be read, or another line is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _record(line)
        except ValueError as error:
            if number == len(lines):  # there is no newline after it
                break
            raise RunFolderError(
                f"{path}, line {number}, is damaged: {line[:60]!r} ({error}). Expected a JSON object with a step; "
                "remove the line to go on with the rest."
            ) from error
        yield line, record


def _record(line: bytes) -> dict[str, Any]:
    record = plain_json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__}, no object")
    step = record.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < _MOST_STEPS:
        raise ValueError(f"step is {reprlib.repr(step)}")
    return record

"""A run's folder, read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fastdat.util.errors import ReportError, RunFolderError
from fastdat.util.run_layout import CONFIG, METRICS, REALS, STATS, read_config, read_records, sample_grids
from fastdat.util.settings import flat_settings


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds; all of it but the configuration may be missing.

    Args:
        path: the folder.
        label: its name; where two runs share one, as much of the path as tells them apart.
        config: config.yaml, sections flattened: ``"dat.eps"``.
        stats: lines of stats.jsonl in the order of their steps.
        metrics: lines of metrics.jsonl that hold scores, in the order of their steps.
        samples: step and file of every sample grid, in the order of their steps.
        reals: the grid of reals.
    """

    path: Path
    label: str
    config: Mapping[str, Any]
    stats: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]]
    samples: Sequence[tuple[int, Path]]
    reals: Path | None

    @property
    def done(self) -> int:
        """G steps known to be done."""
        seen = [record["step"] for record in (*self.stats[-1:], *self.metrics[-1:])]
        return max([*seen, *(step for step, _ in self.samples[-1:])], default=0)

    @property
    def total(self) -> int | None:
        """G steps asked for."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0 else None

    @property
    def attacks(self) -> bool:
        """Whether the discriminator learns on samples that DAT has perturbed."""
        return self.config.get("dat.real") is True or self.config.get("dat.fake") is True

    @property
    def regularizers(self) -> Sequence[Mapping[str, Any]]:
        """The settings of each term of D's loss; its name is one of them."""
        listed = self.config.get("regularizers")
        found = listed if isinstance(listed, list) else []
        return [term for term in found if isinstance(term, dict) and isinstance(term.get("name"), str)]

    @property
    def other_attack(self) -> str | None:
        """The name of the attack in DAT's place, if there is one."""
        name = self.config.get("attack.name")
        return name if isinstance(name, str) else None

    def values(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and finite values of one key of stats.jsonl."""
        pairs = [(line["step"], line[key]) for line in self.stats if is_number(line.get(key))]
        return [step for step, _ in pairs], [float(value) for _, value in pairs]


def is_number(value: object) -> bool:
    """A finite number, and no bool."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return (
        math.isfinite(value) if isinstance(value, float) else abs(value) < 1 << 1000
    )  # a larger one is no float


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs in these folders, each with a label of its own.

    Raises:
        ReportError: no run folder, the same one twice, or a damaged file.
    """
    if not paths:
        raise ReportError("a report needs one run folder at least")
    resolved = [path.resolve() for path in paths]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise ReportError(f"{paths[number]} is given twice")
    return [_read(path, label) for path, label in zip(paths, _labels(resolved), strict=True)]


def _labels(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, and as many of the parts before it as set runs of the same name apart."""
    labels = []
    for path in paths:
        others = [other.parts for other in paths if other != path]
        parts = 1
        while parts < len(path.parts) and any(other[-parts:] == path.parts[-parts:] for other in others):
            parts += 1
        labels.append("/".join(path.parts[-parts:]))
    return labels


def _read(path: Path, label: str) -> RunRecord:
    if not (path / CONFIG).is_file():
        raise ReportError(f"{path} is no run folder: {_what_is_there(path)}")
    reals = path / REALS
    try:
        return RunRecord(
            path=path,
            label=label,
            config=flat_settings(read_config(path)),
            stats=_records(path / STATS),
            metrics=[line for line in _records(path / METRICS) if isinstance(line.get("scores"), dict)],
            samples=sample_grids(path),
            reals=reals if reals.is_file() else None,
        )
    except RunFolderError as error:
        raise ReportError(str(error)) from error


def _records(file: Path) -> list[Mapping[str, Any]]:
    return sorted((record for _, record in read_records(file)), key=lambda record: record["step"])


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "it does not exist"
    if not path.is_dir():
        return f"it is a file; give the folder that holds {CONFIG}"
    try:
        inner = sorted(child.name for child in path.iterdir() if (child / CONFIG).is_file())
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    hint = f"; there are runs inside it: {', '.join(inner[:5])}" if inner else ""
    return f"looked for {CONFIG} in it, which `fastdat train` writes when a run begins{hint}"


def without_beginning(text: str) -> str:
    """``.../sets/cifar10``: the last two parts of an absolute path, which do not say whose folder it is in."""
    path = PurePosixPath(text)
    return f".../{'/'.join(path.parts[-2:])}" if path.is_absolute() and len(path.parts) > 3 else text

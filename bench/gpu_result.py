"""The result file of `gpu_check`: one JSON a GPU and day, to which each part adds what it found."""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import environment
from bench.gpu_records import Records
from fastdat.util import provenance
from fastdat.util.files import write_atomically

PYTEST_OK, PYTEST_FAILED, PYTEST_NOTHING_SELECTED = 0, 1, 5


@dataclass
class Outcome:
    """How a part went."""

    records: Records
    status: int
    """Exit status of pytest; negative, where a signal ended it."""
    ended_by: str | None
    """"limit" or "interrupt", where the part was stopped before its end."""
    started: float
    """Seconds since 1970."""
    seconds: float
    limit: float

    @property
    def interrupted(self) -> bool:
        return self.ended_by == "interrupt"

    @property
    def verdict(self) -> str:
        """One of "passed", "failed", and "stopped" where nothing failed before the part was."""
        counts = self.records.counts()
        if counts["failed"]:
            return "failed"
        if self.ended_by is not None:
            return "stopped"
        good = self.status == PYTEST_OK and counts["passed"] > 0 and not counts["not_reached"]
        return "passed" if good else "failed"

    @property
    def reason(self) -> str:
        """Why it did not pass, or what it left out; empty where it did all."""
        records, counts = self.records, self.records.counts()
        of_all = sum(counts.values())
        told = []
        if counts["failed"]:
            told.append(f"{counts['failed']} of {of_all} failed")
        if self.ended_by is not None:
            how = f"stopped after {self.seconds:.0f} s" if self.ended_by == "limit" else "interrupted"
            told.append(f"{how} with {counts['not_reached']} of {of_all} not reached")
        elif self.status == PYTEST_NOTHING_SELECTED or (not of_all and not records.errors):
            told.append("nothing was selected")
        elif self.status not in (PYTEST_OK, PYTEST_FAILED):
            told.append(f"pytest ended with status {self.status}, {counts['not_reached']} not reached")
        if counts["skipped"]:
            told.append(f"{counts['skipped']} of {of_all} skipped")
        return ", ".join(told)

    def summary(self) -> dict[str, Any]:
        """For the JSON; benchmarks lie beside it."""
        records = self.records
        bad = [name for name, outcome in records.outcomes.items() if outcome in ("failed", "error")]
        skipped = [name for name, outcome in records.outcomes.items() if outcome == "skipped"]
        slowest = sorted(records.seconds, key=lambda name: -records.seconds[name])[:5]
        started = datetime.datetime.fromtimestamp(self.started, datetime.UTC)
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "limit_s": self.limit,
            "pytest_status": self.status,
            **records.counts(),
            "failures": {name: records.messages[name] for name in [*records.errors, *bad]},
            "skips": {name: records.messages[name] for name in skipped},
            "unreached": records.not_reached,
            "slowest": {name: round(records.seconds[name], 2) for name in slowest},
            "warnings": records.warnings,
        }


class Result:
    """The file, and what is in it.

    Args:
        path: of the JSON; read where it exists, so that parts add up over several runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        named = os.environ.get("OUT")
        self._out = Path(named) if named else None
        """A second folder for all that is written."""
        if self._out is not None:
            self._out.mkdir(parents=True, exist_ok=True)
        self._asked: dict[str, Outcome] = {}
        self._content: dict[str, Any] = {"parts": {}, "benchmarks": []}
        if path.exists():
            try:
                self._content |= json.loads(path.read_text())
            except json.JSONDecodeError as error:
                sys.exit(f"gpu-check: {path} is no JSON ({error}); move it away and start again")

    @classmethod
    def of_today(cls) -> Result:
        """That of an earlier part, or a new one beside what `make bench` wrote."""
        return cls(next(path for path in environment.paths() if not path.exists() or _has_parts(path)))

    def add(self, name: str, outcome: Outcome) -> None:
        """Put a part in the place of an earlier one of its name, and write the file."""
        self._asked[name] = outcome
        commit = provenance.commit_info()
        self._content |= {"machine_info": provenance.machine_info(), "commit_info": commit}
        self._content["parts"][name] = {**outcome.summary(), "commit_info": commit}
        others = [record for record in self._content["benchmarks"] if record.get("part") != name]
        mine = [{"part": name, **record} for record in outcome.records.benchmarks]
        self._content["benchmarks"] = [*others, *mine]
        text = json.dumps(self._content, indent=1) + "\n"
        for place, name in ((Path.cwd(), "."), (Path(sys.prefix), "python"), (Path.home(), "~")):
            text = text.replace(f"{place}/", f"{name}/")
        for folder in self._folders():
            write_atomically(folder / self.path.name, text.encode())

    def records_path(self, name: str) -> Path:
        """Where a part's records lie while it runs: what is left of them should all else be killed."""
        return self._folders()[-1] / self.path.with_suffix(f".{name}.jsonl").name

    def logs(self) -> list[Path]:
        """Where the output goes."""
        return [folder / self.path.with_suffix(".log").name for folder in self._folders()]

    def _folders(self) -> list[Path]:
        return [self.path.parent, *([] if self._out is None else [self._out])]

    def describe(self, name: str) -> Iterator[str]:
        """The lines that say how a part went."""
        outcome = self._asked[name]
        reason = f": {outcome.reason}" if outcome.reason else ""
        counts = outcome.records.counts()
        yield f"{name} {outcome.verdict}{reason} ({counts['passed']} passed, {outcome.seconds:.0f} s)"
        for test, message in outcome.summary()["failures"].items():
            yield f"  {test}: {message.splitlines()[0] if message else 'no message'}"
        for warning in outcome.records.warnings:
            first = warning["message"].splitlines()[0] if warning["message"] else ""
            yield (
                f"  unknown warning, {warning['count']} times, first in {warning['first']}: "
                f"{warning['category']}: {first}"
            )

    def passed(self, wanted: Sequence[str]) -> bool:
        return all(name in self._asked and self._asked[name].verdict == "passed" for name in wanted)

    def verdict(self, wanted: Sequence[str]) -> str:
        """One line on all parts that were asked for: what passed, what failed, what was not reached."""
        groups: dict[str, list[str]] = {"passed": [], "failed": [], "not reached": []}
        for name in wanted:
            if name not in self._asked:
                groups["not reached"].append(name)
                continue
            outcome = self._asked[name]
            group = {"stopped": "not reached"}.get(outcome.verdict, outcome.verdict)
            groups[group].append(f"{name} ({outcome.reason})" if outcome.reason else name)
        return "; ".join(f"{group}: {', '.join(names) or 'nothing'}" for group, names in groups.items())


def _has_parts(path: Path) -> bool:
    return '"parts"' in path.read_text()

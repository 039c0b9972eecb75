"""The result of gpu-check: one JSON for each GPU and day, to which every part adds its findings."""

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
from bench.gpu_check.records import Records
from fastdat.util import provenance
from fastdat.util.files import write_atomically

PYTEST_OK, PYTEST_FAILED, PYTEST_NOTHING_SELECTED = 0, 1, 5


@dataclass
class Outcome:
    """How a part ended."""

    records: Records
    status: int
    """Exit status of pytest; negative if a signal ended it."""
    ended_by: str | None
    """"limit" or "interrupt" if the part was stopped early, else None."""
    started: float
    """Start time in seconds since 1970."""
    seconds: float
    limit: float

    @property
    def interrupted(self) -> bool:
        return self.ended_by == "interrupt"

    @property
    def verdict(self) -> str:
        """One of "passed", "failed", and "stopped": nothing failed before the part was stopped."""
        counts = self.records.counts()
        if counts["failed"]:
            return "failed"
        if self.ended_by is not None:
            return "stopped"
        good = self.status == PYTEST_OK and counts["passed"] > 0 and not counts["not_reached"]
        return "passed" if good else "failed"

    @property
    def reason(self) -> str:
        """Why the part did not pass, or what it left out; empty if everything ran."""
        records, counts = self.records, self.records.counts()
        total = sum(counts.values())
        reasons = []
        if counts["failed"]:
            reasons.append(f"{counts['failed']} of {total} failed")
        if self.ended_by is not None:
            how = f"stopped after {self.seconds:.0f} s" if self.ended_by == "limit" else "interrupted"
            reasons.append(f"{how} with {counts['not_reached']} of {total} not reached")
        elif self.status == PYTEST_NOTHING_SELECTED or (not total and not records.errors):
            reasons.append("nothing was selected")
        elif self.status not in (PYTEST_OK, PYTEST_FAILED):
            reasons.append(f"pytest ended with status {self.status}, {counts['not_reached']} not reached")
        if counts["skipped"]:
            reasons.append(f"{counts['skipped']} of {total} skipped")
        return ", ".join(reasons)

    def summary(self) -> dict[str, Any]:
        """The part's entry in the JSON, without its benchmarks."""
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
    """The JSON file and its content.

    Args:
        path: the JSON. If it exists it is read, so that parts of several runs add up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        named = os.environ.get("OUT")
        self._out = Path(named) if named else None
        """A second folder that gets a copy of everything."""
        if self._out is not None:
            self._out.mkdir(parents=True, exist_ok=True)
        self._outcomes: dict[str, Outcome] = {}
        self._content: dict[str, Any] = {"parts": {}, "benchmarks": []}
        if path.exists():
            try:
                self._content |= json.loads(path.read_text())
            except json.JSONDecodeError as error:
                sys.exit(f"gpu-check: {path} is not valid JSON ({error}); move it away and start again")

    @classmethod
    def of_today(cls) -> Result:
        """Today's file of earlier parts, or a new one; a result of `make bench` is left alone."""
        return cls(next(path for path in environment.paths() if not path.exists() or _has_parts(path)))

    def add(self, name: str, outcome: Outcome) -> None:
        """Add a part, in place of an earlier one of the same name, and write the file."""
        self._outcomes[name] = outcome
        commit = provenance.commit_info()
        self._content |= {"machine_info": provenance.machine_info(), "commit_info": commit}
        self._content["parts"][name] = {**outcome.summary(), "commit_info": commit}
        others = [record for record in self._content["benchmarks"] if record.get("part") != name]
        mine = [{"part": name, **record} for record in outcome.records.benchmarks]
        self._content["benchmarks"] = [*others, *mine]
        text = json.dumps(self._content, indent=1) + "\n"
        for folder, alias in ((Path.cwd(), "."), (Path(sys.prefix), "python"), (Path.home(), "~")):
            text = text.replace(f"{folder}/", f"{alias}/")
        for place in self._folders():
            write_atomically(place / self.path.name, text.encode())

    def records_path(self, name: str) -> Path:
        """The file for a part's records while it runs. It stays there if this process is killed, too."""
        return self._folders()[-1] / self.path.with_suffix(f".{name}.jsonl").name

    def logs(self) -> list[Path]:
        """The files to which the output is appended."""
        return [folder / self.path.with_suffix(".log").name for folder in self._folders()]

    def _folders(self) -> list[Path]:
        return [self.path.parent, *([] if self._out is None else [self._out])]

    def describe(self, name: str) -> Iterator[str]:
        """The lines that say how a part ended."""
        outcome = self._outcomes[name]
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
        return all(name in self._outcomes and self._outcomes[name].verdict == "passed" for name in wanted)

    def verdict(self, wanted: Sequence[str]) -> str:
        """One line about the wanted parts: which passed, which failed, which were not reached."""
        groups: dict[str, list[str]] = {"passed": [], "failed": [], "not reached": []}
        for name in wanted:
            if name not in self._outcomes:
                groups["not reached"].append(name)
                continue
            outcome = self._outcomes[name]
            group = {"stopped": "not reached"}.get(outcome.verdict, outcome.verdict)
            groups[group].append(f"{name} ({outcome.reason})" if outcome.reason else name)
        return "; ".join(f"{group}: {', '.join(names) or 'nothing'}" for group, names in groups.items())


def _has_parts(path: Path) -> bool:
    return '"parts"' in path.read_text()

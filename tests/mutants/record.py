"""What a run of mutants is written down as: bench/results/mutants.json, which keeps the figures of the runs before."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from fastdat.util.provenance import commit_info, machine_info
from tests.mutants.running import Outcome

SUMMARY = ("commit", "seed", "asked", "mutants", "killed", "share_killed", "seconds")


def record(
    outcomes: list[Outcome], seed: int, asked: int | None, equivalents: int, seconds: float
) -> dict[str, Any]:
    """One run.

    Args:
        outcomes: Of all mutants but the equivalent ones.
        asked: Size of the sample; None is every place.
        equivalents: How many of the sample are listed as equivalent and were not run.
    """
    survivors = [outcome.mutant for outcome in outcomes if outcome.by is None]
    killed = len(outcomes) - len(survivors)
    units: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        units.setdefault(_unit(outcome.mutant.file), Counter())["killed" if outcome.by else "survived"] += 1
    return {
        "machine": machine_info(),
        "commit": commit_info(),
        "seed": seed,
        "asked": asked,
        "mutants": len(outcomes),
        "equivalent": equivalents,
        "killed": killed,
        "share_killed": round(killed / max(len(outcomes), 1), 4),
        "timeouts": sum(outcome.by == "timeout" for outcome in outcomes),
        "seconds": round(seconds),
        "units": {unit: dict(counts) for unit, counts in sorted(units.items())},
        "survivors": [
            {
                "id": m.id,
                "file": m.file,
                "line": m.line,
                "in": m.inside,
                "old": m.change()[0],
                "new": m.change()[1],
            }
            for m in sorted(survivors, key=lambda m: (m.file, m.line))
        ],
    }


def write(path: Path, run: dict[str, Any]) -> None:
    """Replace the record; the summary of the one that was there joins `earlier`."""
    earlier: list[dict[str, Any]] = []
    if path.exists():
        before = json.loads(path.read_text())
        earlier = [*before["earlier"], {key: before[key] for key in SUMMARY}]
    path.write_text(json.dumps(run | {"earlier": earlier}, indent=1) + "\n")


def _unit(file: str) -> str:
    parts = Path(file).parts
    return parts[0] if parts[0] == "kernels" else parts[1].removesuffix(".py")

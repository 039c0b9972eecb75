"""What all experiments on images say alike: the command, all settings and scores, and comparisons in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images.image_study import Arm, Trained, diverged
from fastdat.experiments.outcome import Column, ResultTable, Row, Runs, Value

Which = Literal["last", "best"]
Found = Mapping[str, Sequence[Trained]]
"""The runs of each arm by its name."""


def command(name: str, options: Options, seeds: int) -> str:
    """The command that repeats an experiment; FOLDER stands for the user's own."""
    parts = [f"fastdat reproduce {name}", "--quick" if options.quick else "--full", f"--seeds {seeds}"]
    parts += ["--data FOLDER"] if options.data else []
    parts += [f"--only {_quoted(part)}" for part in options.only]
    parts += [] if options.compile else ["--no-compile"]
    return " ".join(parts)


def settings(arms: Sequence[Arm], seeds: int) -> dict[str, Any]:
    """All settings of the arms, in types that JSON knows; the place of the data is none of them."""
    return {
        "seeds": list(range(seeds)),
        "arms": {arm.name: {k: v for k, v in arm.config.to_dict().items() if k != "data"} for arm in arms},
    }


def details(found: Found) -> dict[str, Any]:
    """All scores of all runs, and the last line of their measurements."""
    return {
        "runs": [
            {
                "arm": run.arm,
                "seed": run.seed,
                "folder": f"{run.folder.parent.name}/{run.folder.name}",
                "diverged": run.diverged,
                "scores": list(run.scores),
                "last": run.stats[-1] if run.stats else {},
            }
            for runs in found.values()
            for run in runs
        ]
    }


def seconds(found: Found) -> float:
    """Time that the runs took, with their scores; also where this call has only read them."""
    return sum(map(_run_seconds, (run for runs in found.values() for run in runs)))


def _run_seconds(run: Trained) -> float:
    trained = float(run.stats[-1].get("seconds", 0.0)) if run.stats else 0.0
    last = max((line["step"] for line in run.stats), default=0)
    # Scores before the last line of stats.jsonl are in its seconds.
    return trained + sum(float(s.get("seconds", 0.0)) for s in run.scores if s["step"] >= last)


def divergences(found: Found) -> Iterator[ResultTable]:
    """A table of the arms with runs that NaN ended; no table if there is none."""
    rows = [
        Row(name, {"runs": diverged(runs)}) for name, runs in found.items() if any(r.diverged for r in runs)
    ]
    if rows:
        yield ResultTable(
            "Runs that NaN or infinity ended, which no mean contains", "arm", (Column("runs"),), tuple(rows)
        )


def difference(what: str, first: str, a: Value, second: str, b: Value, digits: int = 2) -> Iterator[str]:
    """A sentence that compares a score of which less is better; nothing unless both were measured.

    Args:
        what: the score: ``"train KID (efficientnet-lite0)"``.
        first, second: the names of the arms.
        a, b: their values.
        digits: decimal places.
    """
    if isinstance(a, Runs) and isinstance(b, Runs):
        gap, verdict = abs(a.mean - b.mean), "lower" if a.mean < b.mean else "higher"
        much = f"{_percent(gap / abs(b.mean))} {verdict} than" if gap and b.mean else "beside"
        compared = f"{number(a, digits)} with {first}, {much} {number(b, digits)} with {second}"
        yield f"{what}: {compared}{_against_spread(gap, a, b)}."
    elif "diverged" in (a, b):
        texts = [number(v, digits) if isinstance(v, Runs) else str(v or "not measured") for v in (a, b)]
        yield f"{what}: {texts[0]} with {first}, {texts[1]} with {second}."


def number(runs: Runs, digits: int) -> str:
    """``"1.23 ± 0.04 (3 runs)"``; ``"1.23"`` of a single run."""
    mean = f"{runs.mean:,.{digits}f}"
    return mean if runs.std is None else f"{mean} ± {runs.std:,.{digits}f} ({len(runs.values)} runs)"


def _against_spread(gap: float, a: Runs, b: Runs) -> str:
    """How the difference of two means compares with its standard error (Welch)."""
    if a.std is None or b.std is None:
        return "; single runs, so the spread is unknown"
    error = math.sqrt(a.std**2 / len(a.values) + b.std**2 / len(b.values))
    return f"; the difference is {gap / error:.1f} times its standard error" if error else ""


def _percent(part: float) -> str:
    """``"57%"``, and ``"0.4%"`` where that would round away what differs."""
    return f"{part:.0%}" if part >= 0.1 else f"{part:.1%}"


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def counted(better: Iterable[bool]) -> str:
    """``"13 of 15"``."""
    listed = list(better)
    return f"{sum(listed)} of {len(listed)}"

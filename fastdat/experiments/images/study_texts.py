"""What all experiments on images say alike: the command, all settings and scores, and comparisons in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images.image_study import Arm, Trained, diverged
from fastdat.experiments.outcome import Column, ResultTable, Row, Runs, Value
from fastdat.experiments.training_origin import Origin, joined
from fastdat.training.device_settings import AUTOMATIC

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
    """All scores of all runs, the last line of their measurements, and what "auto" came to where they were trained."""
    return {
        "runs": [
            {
                "arm": run.arm,
                "seed": run.seed,
                "folder": f"{run.folder.parent.name}/{run.folder.name}",
                "diverged": run.diverged,
                "computed": {key: getattr(run.config, key) for key in AUTOMATIC},
                "scores": list(run.scores),
                "last": run.stats[-1] if run.stats else {},
            }
            for runs in found.values()
            for run in runs
        ]
    }


def origin(found: Found) -> Origin:
    """Where all runs were trained, as far as their folders know it."""
    return joined(run.origin for runs in found.values() for run in runs)


def divergences(found: Found, *, best: bool = False) -> Iterator[ResultTable]:
    """A table of the arms with runs that NaN ended; no table if there is none.

    Args:
        found: all runs.
        best: some means are those of the best step, which such runs may have had.
    """
    rows = [
        Row(name, {"runs": diverged(runs)}) for name, runs in found.items() if any(r.diverged for r in runs)
    ]
    if rows:
        but = (
            "the means at the best step contain them if they were scored before"
            if best
            else "no mean contains them"
        )
        yield ResultTable(f"Runs that NaN or infinity ended; {but}", "arm", (Column("runs"),), tuple(rows))


def whole(runs: Sequence[Trained]) -> list[Trained]:
    """The runs that have reached their last step: all but those that NaN or infinity ended."""
    return [run for run in runs if not run.diverged]


def difference(what: str, first: str, a: Value, second: str, b: Value) -> Iterator[str]:
    """A sentence that compares a score of which less is better; nothing unless both were measured.

    Args:
        what: the score: ``"train KID (efficientnet-lite0)"``.
        first, second: the names of the arms.
        a, b: their values.
    """
    if isinstance(a, Runs) and isinstance(b, Runs):
        much, spread = f"{_compared(a, b)} {'to' if alike(a, b) else 'than'}", ""
        if not alike(a, b):
            spread = _against_spread(a, b)
        yield f"{what}: {number(a)} with {first}, {much} {number(b)} with {second}{spread}."
    elif "diverged" in (a, b):
        texts = [number(v) if isinstance(v, Runs) else str(v or "not measured") for v in (a, b)]
        yield f"{what}: {texts[0]} with {first}, {texts[1]} with {second}."


def ranking(what: str, others: Mapping[str, Value], base: str, against: Value) -> Iterator[str]:
    """One sentence or two that compare several arms with one, in the order of their means.

    Args:
        what: the score: ``"train KID (efficientnet-lite0)"``.
        others: arm -> its value. What was not measured is left out; nothing is said if that is all, or the other one.
        base: the name of the arm with which they are compared.
        against: its value.
    """
    measured = {name: value for name, value in others.items() if isinstance(value, Runs)}
    said = [
        f"{number(value)} with {name}{_beside(value, against)}"
        for name, value in sorted(measured.items(), key=lambda item: item[1].mean)
    ]
    said += [f"{value} with {name}" for name, value in others.items() if value == "diverged"]
    if against is None or not said:
        return
    baseline = f"{number(against) if isinstance(against, Runs) else against} with {base}"
    single = all(value.std is None for value in (*measured.values(), against) if isinstance(value, Runs))
    yield (
        f"{what}: {baseline}; {'; '.join(said)}."
        + (" Single runs, so the spread is unknown." if single else "")
    )


def alike(a: Runs, b: Runs) -> bool:
    """Whether the two means print alike, so that a reader would see no difference."""
    places = max(_places(a), _places(b))
    return f"{a.mean:.{places}f}" == f"{b.mean:.{places}f}"


def lower(a: Runs, b: Runs) -> bool:
    """Whether ``a`` is lower than ``b`` as they print."""
    return a.mean < b.mean and not alike(a, b)


def number(runs: Runs) -> str:
    """``"1.23 ± 0.04 (3 runs)"``; ``"1.23"`` of a single run: three significant digits of the mean, or more where its
    deviation would print as 0."""
    mean, places = f"{runs.mean:,.{_places(runs)}f}", _places(runs)
    return mean if runs.std is None else f"{mean} ± {runs.std:,.{places}f} ({len(runs.values)} runs)"


def _places(runs: Runs) -> int:
    """Decimal places of a mean and of its deviation."""

    def shown(value: float, digits: int) -> int:
        exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 9.996 counts as 10
        return max(0, digits - 1 - exponent)

    spread = shown(runs.std, 1) if runs.std else 0
    if not runs.mean:
        return max(2, spread)
    places = shown(abs(runs.mean), 3)
    return max(places, min(spread, places + 3))  # a deviation far below that is rounding


def _beside(value: Runs, against: Value) -> str:
    """``" (29% lower, 1.3 standard errors)"``; nothing beside a run that diverged."""
    if not isinstance(against, Runs):
        return ""
    error = 0.0 if alike(value, against) else standard_error(value, against)
    spread = f", {abs(value.mean - against.mean) / error:.1f} standard errors" if error else ""
    return f" ({_compared(value, against)}{spread})"


def _compared(a: Runs, b: Runs) -> str:
    """``"29% lower"``, ``"equal"``; without the percentage beside 0."""
    if alike(a, b):
        return "equal"
    verdict = "lower" if a.mean < b.mean else "higher"
    return f"{_percent(abs(a.mean - b.mean) / abs(b.mean))} {verdict}" if b.mean else verdict


def _against_spread(a: Runs, b: Runs) -> str:
    """How the difference of two means compares with its standard error."""
    error = standard_error(a, b)
    if error is None:
        return "; single runs, so the spread is unknown"
    gap = abs(a.mean - b.mean)
    return f"; the difference is {gap / error:.1f} times its standard error" if error else ""


def standard_error(a: Runs, b: Runs) -> float | None:
    """Of the difference of two means (Welch); None where one of them is of a single run."""
    if a.std is None or b.std is None:
        return None
    return math.sqrt(a.std**2 / len(a.values) + b.std**2 / len(b.values))


def _percent(part: float) -> str:
    """``"57%"``, and ``"0.4%"`` where that would round away what differs."""
    if part < 0.0005:
        return "less than 0.1%"
    return f"{part:.0%}" if part >= 0.1 else f"{part:.1%}"


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def counted(better: Iterable[bool]) -> str:
    """``"13 of 15"``."""
    listed = list(better)
    return f"{sum(listed)} of {len(listed)}"

"""The table at the head of "Configuration": what was trained, how far and how fast, with one column per run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdat.report.cells import Cell, Row, Table, run_columns, setting_text
from fastdat.report.runs import RunRecord
from fastdat.report.table2 import data_name, model_name


@dataclass(frozen=True)
class Summary:
    """What ``templates/configuration.html`` shows first.

    Args:
        note: names the runs that have no statistics yet; empty if all have some.
        table: one column per run.
    """

    note: str
    table: Table


def summary(runs: Sequence[RunRecord]) -> Summary:
    """The summary of ``runs``."""
    facts: dict[str, Callable[[RunRecord], str]] = {
        "Model": model_name,
        "Data set": data_name,
        "Attack": attack,
        **({"Regularizers": regularizers} if any(run.regularizers for run in runs) else {}),
        "Batch size, D steps per G step": lambda run: (
            f"{_setting(run, 'batch_size')}, {_setting(run, 'n_dis')}"
        ),
        "Seed": lambda run: _setting(run, "seed"),
        "G steps": _progress,
        "Time": _time,
        "Speed": _speed,
    }
    rows = [Row(Cell(name), [Cell(fact(run)) for run in runs]) for name, fact in facts.items()]
    if any(run.metrics for run in runs):
        rows.append(Row(Cell("Versions"), [Cell(_versions(run)) for run in runs]))
    caption = "The run" if len(runs) == 1 else "The runs side by side"
    empty = [run.label for run in runs if not run.stats]
    note = f"No statistics yet: {', '.join(empty)}. stats.jsonl is missing or empty." if empty else ""
    return Summary(note, Table(Cell(caption), run_columns("", runs), rows))


def attack(run: RunRecord) -> str:
    """The attack in one line: ``DAT on real and fake, eps 1.0, 1 step, first order``; ``robgan (eps 0.0625, ...)``."""
    if run.other_attack is not None:
        own = {key.removeprefix("attack."): of for key, of in run.config.items() if key.startswith("attack.")}
        return _named(own, off={"clean_weight": 0})
    if not any(key.startswith("dat.") for key in run.config):
        return "unknown"
    if not run.attacks:
        return "none"
    sides = " and ".join(side for side in ("real", "fake") if run.config.get(f"dat.{side}") is True)
    steps = run.config.get("dat.steps", 1)
    order = "second order" if run.config.get("dat.second_order") is True else "first order"
    clean = run.config.get("dat.clean_weight")
    parts = [
        f"DAT on {sides}",
        f"eps {setting_text(run.config.get('dat.eps'))}",
        f"{setting_text(steps)} step{'s' * (steps != 1)}",
        order,
        *([f"clean weight {setting_text(clean)}"] if clean else []),
    ]
    return ", ".join(parts)


def regularizers(run: RunRecord) -> str:
    """The terms of D's loss in one line: ``r1 (gamma 1.0, every 16), lecam (weight 0.3)``."""
    return ", ".join(_named(term, off={"every": 1}) for term in run.regularizers) or "none"


def _named(settings: Mapping[str, Any], off: Mapping[str, Any]) -> str:
    """A part by its name, with its settings in brackets; without those that are None, or ``off``."""
    shown = [
        f"{key} {setting_text(value)}"
        for key, value in settings.items()
        if key != "name" and value is not None and (key not in off or value != off[key])
    ]
    return f"{settings['name']} ({', '.join(shown)})" if shown else str(settings["name"])


def duration(seconds: float) -> str:
    """Seconds as ``4 h 05 min``, or as ``4 min 05 s`` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _setting(run: RunRecord, key: str) -> str:
    return setting_text(run.config[key]) if key in run.config else "unknown"


def _progress(run: RunRecord) -> str:
    if run.total is None:
        return f"{run.done:,} done"
    share = f"{100 * run.done // run.total}%"
    return f"{run.done:,} of {run.total:,} ({share})"


def _time(run: RunRecord) -> str:
    _, seconds = run.values("seconds")
    return duration(seconds[-1]) if seconds else "-"


def _speed(run: RunRecord) -> str:
    _, speeds = run.values("it_per_s")
    return f"{statistics.median(speeds):.3g} G steps/s (median)" if speeds else "-"


def _versions(run: RunRecord) -> str:
    """Versions of the latest evaluation that recorded any."""
    recorded = [record["versions"] for record in run.metrics if isinstance(record.get("versions"), dict)]
    latest: dict[str, Any] = next((versions for versions in reversed(recorded) if versions), {})
    return ", ".join(f"{name} {version}" for name, version in latest.items() if name != "commit") or "-"

"""What is told in tables: the runs side by side, and their settings."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastdat.report.markup import Child, Markup, element, join, table
from fastdat.report.runs import RunRecord
from fastdat.report.score_table import Kind, Series, kinds_of
from fastdat.report.table2 import dataset_name, model_name

_LONGEST = 300


def run_name(runs: Sequence[RunRecord], number: int) -> Markup:
    """A run's label after its colour."""
    swatch = element("span", class_="swatch", style=f"background:var(--run{number})", aria_hidden="true")
    return element("span", swatch, runs[number].label)


def run_names(runs: Sequence[RunRecord]) -> list[Markup]:
    """Of all runs, for the head of a table."""
    return [run_name(runs, i) for i in range(len(runs))]


def summary(runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]]) -> Markup:
    """A column a run: what was trained, how far, how fast and how well."""
    facts: dict[str, Callable[[RunRecord], Child]] = {
        "Model": model_name,
        "Data set": _data,
        "Attack": attack,
        "Batch, D steps a G step": lambda run: f"{_known(run, 'batch_size')}, {_known(run, 'n_dis')}",
        "Seed": lambda run: _known(run, "seed"),
        "G steps": _progress,
        "Time": _time,
        "Speed": _speed,
    }
    rows: list[tuple[Child, Sequence[Child], bool]] = [
        (name, [fact(run) for run in runs], False) for name, fact in facts.items()
    ]
    for kind in kinds_of(all_series):
        cells = [_last_and_best(kind, series[kind]) if kind in series else "-" for series in all_series]
        rows.append((join([kind.title, element("small", kind.details)]), cells, False))
    if any(run.metrics for run in runs):
        rows.append(("Versions", [_versions(run) for run in runs], False))
    caption = "The run" if len(runs) == 1 else "The runs side by side"
    empty = [run.label for run in runs if not run.stats]
    note = f"No statistics yet: {', '.join(empty)}. stats.jsonl is missing or empty." if empty else ""
    return join([element("p", note), table(caption, ["", *run_names(runs)], rows)])


def _data(run: RunRecord) -> str:
    size = run.config.get("resolution")
    return dataset_name(run) if size is None else f"{dataset_name(run)} at {size}"


def configuration(runs: Sequence[RunRecord]) -> Markup:
    """All settings; what differs between runs stands first and highlighted."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    cells = {key: [_setting(run.config, key) for run in runs] for key in keys}
    differing = [key for key in keys if len(set(cells[key])) > 1]
    head = ["Setting", *run_names(runs)]
    everything = table(
        "All settings (config.yaml)", head, [(key, cells[key], key in differing) for key in keys]
    )
    if len(runs) == 1:
        return everything
    if differing:
        first = table("Settings that differ", head, [(key, cells[key], True) for key in differing])
    else:
        first = element("p", "All settings are the same.")
    folded = element("details", element("summary", f"All {len(keys)} settings"), everything)
    return join([first, folded])


def attack(run: RunRecord) -> str:
    """The attack in one line: ``DAT on real and fake, eps 1.0, 1 step, first order``."""
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
        f"eps {_plain(run.config.get('dat.eps'))}",
        f"{_plain(steps)} step{'s' * (steps != 1)}",
        order,
        *([f"clean weight {_plain(clean)}"] if clean else []),
    ]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``4 h 05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _known(run: RunRecord, key: str) -> str:
    return _plain(run.config[key]) if key in run.config else "unknown"


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


def _last_and_best(kind: Kind, series: Series) -> Markup:
    last, best = len(series.steps) - 1, series.best(kind)
    parts = [series.form(kind, last), element("small", f"last, step {series.steps[last]:,}")]
    if best is not None:
        parts.append(element("small", f"best {series.form(kind, best)}, step {series.steps[best]:,}"))
    return join(parts)


def _versions(run: RunRecord) -> str:
    found = [record["versions"] for record in run.metrics if isinstance(record.get("versions"), dict)]
    latest: dict[str, Any] = next((versions for versions in reversed(found) if versions), {})
    return ", ".join(f"{name} {version}" for name, version in latest.items() if name != "commit") or "-"


def _setting(config: Mapping[str, Any], key: str) -> str:
    return _plain(config[key]) if key in config else "not set"


def _plain(value: object) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = {"null": "none"}.get(shown, shown)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} …"

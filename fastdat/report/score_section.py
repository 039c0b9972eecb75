"""The section "Scores": one table with all scores, and how each was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastdat.report.cells import Cell, Row, Table, run_names
from fastdat.report.comparison import AllSeries, last_common_step, standing
from fastdat.report.groups import Group
from fastdat.report.runs import RunRecord
from fastdat.report.score_names import ScoreName
from fastdat.report.score_table import Kind, Series


@dataclass(frozen=True)
class Scores:
    """What ``templates/scores.html`` shows.

    Args:
        table: one row per run, and one above the runs of a group with their mean; None if there are no scores.
        footnotes: how each score was measured.
        ranges: whether some row shows the range over the seeds of a group.
    """

    table: Table | None
    footnotes: Sequence[ScoreName]
    ranges: bool


def scores(
    runs: Sequence[RunRecord], groups: Sequence[Group], all_series: AllSeries, names: Mapping[Kind, ScoreName]
) -> Scores:
    """All scores of ``runs``, which form ``groups``."""
    labels = run_names(runs)
    ends = {series[kind].steps[-1] for series in all_series for kind in series}
    # If all runs were scored last at the same step, it is named once, above the table.
    step = ends.pop() if len(ends) == 1 else None
    rows: list[Row] = []
    for group in groups:
        if group.several:
            means = [_mean(group, kind, all_series, step) for kind in names]
            rows.append(Row(Cell(group.label, (f"mean of {group.counted}",)), means, "total"))
        rows += [
            Row(
                Cell(run=labels[member]),
                [last_score(kind, all_series[member].get(kind), step) for kind in names],
                "part" if group.several else "",
            )
            for member in group.members
        ]
    caption = f"Scores at step {step:,}" if step is not None else "The last scores"
    head = [Cell("Run"), *(Cell(score=name, notes=(name.source, name.direction)) for name in names.values())]
    return Scores(
        table=Table(Cell(caption), head, rows) if names else None,
        footnotes=list(names.values()),
        ranges=any(row.mark == "total" for row in rows),
    )


def last_score(kind: Kind, series: Series | None, known_step: int | None = None) -> Cell:
    """The last score with its step, unless that is ``known_step``; the best one too, unless it is the last."""
    if series is None:
        return Cell("-")
    last, best = len(series.steps) - 1, series.best(kind)
    notes = _step_note(series.steps[last], known_step)
    if best is not None and series.values[best] != series.values[last]:
        notes.append(f"best {series.text(kind, best)}, step {series.steps[best]:,}")
    return Cell(series.text(kind, last), tuple(notes))


def _step_note(step: int, known: int | None) -> list[str]:
    return [] if step == known else [f"step {step:,}"]


def _mean(group: Group, kind: Kind, all_series: AllSeries, known_step: int | None) -> Cell:
    """Mean and range over the seeds of a group, at the greatest step that all of its runs with this score have."""
    step = last_common_step([group], kind, all_series)
    place = None if step is None else standing(group, kind, step, all_series)
    if step is None or place is None or place.runs < 2:
        return Cell("-")
    notes = [
        f"{kind.text(min(place.values))} to {kind.text(max(place.values))}",
        *_step_note(step, known_step),
    ]
    if place.runs < len(group.members):
        notes.append(f"of {place.runs} runs")
    return Cell(kind.text(place.mean), tuple(notes))

"""The section "Scores beside the paper's": one table per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastdat.report import table2
from fastdat.report.cells import Cell, Row, RunName, Table, run_names
from fastdat.report.runs import RunRecord
from fastdat.report.score_table import Kind, Series, sorted_kinds


@dataclass(frozen=True)
class RunScores:
    """The scores of one run.

    Args:
        run: the run's name.
        table: one row per kind of score; None if the run has no scores.
        note: how the run's settings differ from the paper's; empty where the paper has no such run.
    """

    run: RunName
    table: Table | None = None
    note: str = ""


def scores(runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]]) -> list[RunScores]:
    """For each run its scores, the numbers of the paper's Table II, and whether the two are comparable."""
    return [
        _run_scores(run, name, series)
        for run, name, series in zip(runs, run_names(runs), all_series, strict=True)
    ]


def _run_scores(run: RunRecord, name: RunName, series: Mapping[Kind, Series]) -> RunScores:
    if not series:
        return RunScores(name)
    column, dataset = table2.column(run), table2.dataset_name(run)
    kinds = sorted_kinds([series])
    head = [Cell("Score"), Cell("Last"), Cell("Best of the run")]
    if column is None:
        caption = Cell(f": {table2.model_name(run)} on {dataset}, not in the paper's Table II", run=name)
        return RunScores(name, Table(caption, head, [Row(_heading(k), _own_cells(k, series)) for k in kinds]))
    head += [Cell(f"Paper: {column}", (f"{dataset}, Table II",)), Cell("Comparable")]
    rows = [Row(_heading(k), [*_own_cells(k, series), *_paper_cells(run, k)]) for k in kinds]
    differences = table2.differences(run)
    note = (
        f"Apart from scores: {'; '.join(differences)}."
        if differences
        else "Settings and steps are those of Table I."
    )
    return RunScores(name, Table(Cell(" and the paper", run=name), head, rows), note)


def _heading(kind: Kind) -> Cell:
    return Cell(kind.title, (kind.details,))


def _own_cells(kind: Kind, series: Mapping[Kind, Series]) -> list[Cell]:
    """The last value and the best one."""
    own = series[kind]
    chosen = (len(own.steps) - 1, own.best(kind))
    return [Cell("-") if i is None else Cell(own.text(kind, i), (f"step {own.steps[i]:,}",)) for i in chosen]


def _paper_cells(run: RunRecord, kind: Kind) -> list[Cell]:
    """The paper's number, and whether the run's score is comparable with it."""
    number = table2.number(run, kind.name, kind.split)
    if number is None:
        return [Cell("-"), Cell("-")]
    objections = table2.objections(kind, str(run.config.get("dataset")))
    comparable = f"No: {'; '.join(objections)}" if objections else "Yes, by extractor and counts"
    return [Cell(kind.text(number)), Cell(comparable)]

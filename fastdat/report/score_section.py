"""Scores of the runs beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastdat.report import table2
from fastdat.report.markup import Child, Markup, element, join, table
from fastdat.report.runs import RunRecord
from fastdat.report.score_table import Kind, Series, kinds_of
from fastdat.report.tables import run_name


def scores(runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]]) -> Markup:
    """A table a run: its scores, the paper's Table II, and whether the two may be compared."""
    if not any(all_series):
        return element("p", "No scores: no run has a metrics.jsonl with scores in it.")
    tables = [_run(runs, number, series) for number, series in enumerate(all_series)]
    return join([element("p", table2.CAVEAT), *tables])


def _run(runs: Sequence[RunRecord], number: int, series: Mapping[Kind, Series]) -> Markup:
    run, name = runs[number], run_name(runs, number)
    if not series:
        return element("p", name, ": no scores.")
    column = table2.column(run)
    dataset = table2.dataset_name(run)
    head: list[Child] = ["Score", "Last", "Best of the run"]
    if column is None:
        caption = join([name, f": {table2.model_name(run)} on {dataset}, not in the paper's Table II"])
        rows = [(_heading(kind), _own(kind, series), False) for kind in kinds_of([series])]
        return table(caption, head, rows)
    head += [join([f"Paper: {column}", element("small", f"{dataset}, Table II")]), "Comparable"]
    rows = [
        (_heading(kind), [*_own(kind, series), *_beside(run, kind)], False) for kind in kinds_of([series])
    ]
    differing = table2.differences(run)
    note = (
        f"Apart from scores: {'; '.join(differing)}."
        if differing
        else "Settings and steps are those of Table I."
    )
    return join([table(join([name, " and the paper"]), head, rows), element("p", note, class_="quiet")])


def _heading(kind: Kind) -> Markup:
    return join([kind.title, element("small", kind.details)])


def _own(kind: Kind, series: Mapping[Kind, Series]) -> list[Child]:
    """The last value and the best one."""
    own = series[kind]
    chosen = (len(own.steps) - 1, own.best(kind))
    return [
        "-" if i is None else join([own.form(kind, i), element("small", f"step {own.steps[i]:,}")])
        for i in chosen
    ]


def _beside(run: RunRecord, kind: Kind) -> list[Child]:
    """The paper's number, and why it is or is not comparable."""
    number = table2.number(run, kind.name, kind.split)
    if number is None:
        return ["-", "-"]
    against = table2.objections(kind, str(run.config.get("dataset")))
    return [kind.form(number), f"No: {'; '.join(against)}" if against else "Yes, by extractor and counts"]

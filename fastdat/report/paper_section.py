"""The section "The paper's table": scores of each run beside those of the paper's Table II."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastdat.report import paper_settings, table2
from fastdat.report.cells import Cell, Row, RunName, Table, run_names
from fastdat.report.comparison import AllSeries
from fastdat.report.runs import RunRecord
from fastdat.report.score_names import ScoreName
from fastdat.report.score_section import last_score
from fastdat.report.score_table import Kind, Series


@dataclass(frozen=True)
class BesidePaper:
    """One run beside the paper.

    Args:
        table: one row per kind of score.
        note: how the run's settings differ from the paper's, and what its attack is.
    """

    table: Table
    note: str


@dataclass(frozen=True)
class Paper:
    """What ``templates/paper.html`` shows.

    Args:
        tables: of the runs that can be compared.
        without: why other runs have no table, and which these are.
    """

    tables: Sequence[BesidePaper]
    without: Sequence[tuple[str, Sequence[RunName]]]


def beside_paper(runs: Sequence[RunRecord], all_series: AllSeries, names: Mapping[Kind, ScoreName]) -> Paper:
    """For each run its scores, the numbers of the paper's Table II, and whether the two are comparable."""
    tables: list[BesidePaper] = []
    without: dict[str, list[RunName]] = {}
    for run, label, series in zip(runs, run_names(runs), all_series, strict=True):
        if table2.column(run) is None:
            reason = f"{table2.model_name(run)} on {table2.dataset_name(run)} is not in the paper's Table II."
            without.setdefault(reason, []).append(label)
        elif not series:
            without.setdefault("no scores.", []).append(label)
        else:
            tables.append(_beside_paper(run, label, series, names))
    return Paper(tables, list(without.items()))


def _beside_paper(
    run: RunRecord, label: RunName, series: Mapping[Kind, Series], names: Mapping[Kind, ScoreName]
) -> BesidePaper:
    paper = Cell(f"Paper: {table2.column(run)}", (f"{table2.dataset_name(run)}, Table II",))
    rows = [
        Row(
            Cell(score=name, notes=(name.source,)), [last_score(kind, series[kind]), *_paper_cells(run, kind)]
        )
        for kind, name in names.items()
        if kind in series
    ]
    differences = paper_settings.differences(run)
    note = (
        f"Apart from scores: {'; '.join(differences)}."
        if differences
        else "Settings and steps are those of Table I."
    )
    note = " ".join([note, *paper_settings.attack_sentences(run)])
    head = [Cell("Score"), Cell("This run"), paper, Cell("Comparable")]
    return BesidePaper(Table(Cell(" and the paper", run=label), head, rows), note)


def _paper_cells(run: RunRecord, kind: Kind) -> list[Cell]:
    """The paper's number, and whether the run's score is comparable with it."""
    number = table2.number(run, kind.name, kind.split)
    if number is None:
        return [Cell("-"), Cell("-")]
    objections = table2.objections(kind, str(run.config.get("dataset")))
    yes = "; ".join(part for part in ("Yes, by extractor and counts", table2.counted_fakes(kind)) if part)
    comparable = f"No: {'; '.join(objections)}" if objections else yes
    return [Cell(kind.text(number)), Cell(comparable)]

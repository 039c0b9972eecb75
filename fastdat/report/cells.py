"""The tables of the page as data. ``templates/macros.html`` turns them into HTML and escapes every text in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fastdat.report.runs import RunRecord
from fastdat.report.score_names import ScoreName

_LONGEST = 300  # characters of a setting's value


@dataclass(frozen=True)
class RunName:
    """A run's name behind a square in its colour.

    Args:
        number: position of the run on the page; its colour is the CSS variable ``--run<number>``.
        label: the run's name.
    """

    number: int
    label: str


@dataclass(frozen=True)
class Cell:
    """The content of a table cell: a run's or a score's name (optional), then text, then notes in small print.

    Args:
        text: the main text.
        notes: small lines below the text.
        run: stands before the text.
        score: stands before the text, with a link to its footnote.
    """

    text: str = ""
    notes: tuple[str, ...] = ()
    run: RunName | None = None
    score: ScoreName | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        heading: the first cell, which names the row.
        cells: the other cells.
        mark: how the row stands out: ``"differs"`` by a coloured background, ``"total"`` by weight, ``"part"`` by its
            indented heading; empty for an ordinary row.
    """

    heading: Cell
    cells: Sequence[Cell]
    mark: Literal["", "differs", "total", "part"] = ""


@dataclass(frozen=True)
class Table:
    """A table with a heading for each column and each row.

    Args:
        caption: says what the table shows.
        head: column headings; the first stands above the row headings.
        rows: from top to bottom.
    """

    caption: Cell
    head: Sequence[Cell]
    rows: Sequence[Row]


def run_names(runs: Sequence[RunRecord]) -> list[RunName]:
    """The names of all runs, in the order of the page."""
    return [RunName(number, run.label) for number, run in enumerate(runs)]


def run_columns(first: str, runs: Sequence[RunRecord]) -> list[Cell]:
    """Column headings of a table with one run per column; ``first`` stands above the row headings."""
    return [Cell(first), *(Cell(run=name) for name in run_names(runs))]


def setting_text(value: object) -> str:
    """A setting's value as text, cut off after 300 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = {"null": "none"}.get(text, text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"

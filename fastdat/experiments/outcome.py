"""What an experiment found: tables with the paper's numbers beside ours, sentences about them, and figures.

Every experiment returns an :class:`Outcome`, whatever it trains; ``outcome_files.py`` writes its files.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from fastdat.experiments.training_origin import Origin


@dataclass(frozen=True)
class Runs:
    """A number that was measured in independent runs.

    Args:
        values: one per run, in the order of their seeds.

    Raises:
        ValueError: there is no value, or one is NaN or infinite.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(map(math.isfinite, self.values)):
            raise ValueError(
                f"a cell of runs needs at least one value, all finite; got {self.values}: leave out the runs that have "
                "none, and the cell (None) where no run is left"
            )

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Their sample standard deviation; None for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


Value = Runs | float | str | None
"""A cell: of independent runs, a number that has no runs (a cost), a word, or nothing (not measured)."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: with its unit, as the head of the column: ``"train FID"``, ``"modes, balanced"``, ``"step, ms"``.
        digits: decimal places.
    """

    name: str
    digits: int = 2


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        label: what the row is about.
        cells: our values by the names of columns; a column that is missing was not measured.
        paper: the paper's numbers by the names of columns.

    Raises:
        ValueError: a number is NaN or infinite.
    """

    label: str
    cells: Mapping[str, Value]
    paper: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for column, value in self.cells.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"{self.label!r}, {column!r}: a cell needs a finite number; got {value}: give None or a word"
                )


@dataclass(frozen=True)
class ResultTable:
    """A table of the paper, or one beside it.

    Args:
        title: stands above it.
        head: head of the column of labels.
        columns: ours, from left to right.
        rows: from top to bottom.
        paper_columns: the paper's, from left to right; their numbers stand in ``Row.paper``.
        comparable: a column of ours and the paper's column of the same name measure the same, so that their difference
            says something: equal data, nets, training and score. Never in a scaled-down run.
    """

    title: str
    head: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    paper_columns: tuple[Column, ...] = ()
    comparable: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came out of an experiment.

    Args:
        name: of the experiment, as in ``fastdat reproduce NAME``; the files are called so.
        title: what it is in the paper, and in a scaled-down run of what: ``"Table IV, scaled down: nine Gaussians"``.
        quick: it was scaled down.
        command: repeats it.
        protocol: what was trained and measured, and which choices are ours; a paragraph each.
        tables: the results.
        findings: what they say, one sentence each, computed from the numbers.
        notes: what a reader has to know beside the paper's text: its errors, gaps and contradictions.
        config: all settings, in types that JSON knows.
        details: all numbers that are in no table, in types that JSON knows.
        figures: by the end of their file's name: ``""`` is NAME.png, ``"-samples"`` is NAME-samples.png.
        seconds: time of the training and the measurements.
        origin: where it was trained. The page names what is not its own commit or machine. Empty if the experiment does
            not keep it.
    """

    name: str
    title: str
    quick: bool
    command: str
    protocol: tuple[str, ...]
    tables: tuple[ResultTable, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    config: Mapping[str, Any]
    details: Mapping[str, Any]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    seconds: float = 0.0
    origin: Origin = field(default_factory=Origin)

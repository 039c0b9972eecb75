"""The section "Samples": the grids of all runs side by side, at equal steps, and the reals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastdat.report.cells import RunName, run_names
from fastdat.report.grids import Grids, Picture
from fastdat.report.runs import RunRecord
from fastdat.report.table2 import data_name

_MOST_COLUMNS = {"wide": 5, "middle": 3, "narrow": 2}  # of screens from 1,100 and 700 pixels, and of phones


@dataclass(frozen=True)
class RunSamples:
    """The grids of one run.

    Args:
        run: the run's name.
        grids: its pictures.
        shown: position of the grid that is shown at first; -1 is the last one.
    """

    run: RunName
    grids: Grids
    shown: int


@dataclass(frozen=True)
class Samples:
    """What ``templates/samples.html`` shows.

    Args:
        runs: in the order of the page.
        reals: title and picture of each set of reals.
        step: the step that is shown at first; None if runs have no grids of the same step.
        style: CSS variables with the numbers of columns, and of columns that the last card takes.
        room: classes that name the screens on which the last card has room beside its picture.
    """

    runs: Sequence[RunSamples]
    reals: Sequence[tuple[str, Picture]]
    step: int | None
    style: str
    room: str

    @property
    def empty(self) -> bool:
        """Whether there is neither a picture nor a problem with one."""
        return not self.reals and not any(run.grids.pictures or run.grids.unreadable for run in self.runs)


def samples(runs: Sequence[RunRecord], grids: Sequence[Grids]) -> Samples:
    """The grids of ``runs``. At first they show the greatest step (but 0) of which all runs have one, or their last."""
    steps = [set(shown.steps) for shown in grids if shown.pictures]
    shared = set.intersection(*steps) if steps else set()
    common = max(shared - {0}, default=None)
    reals = [(data_name(run), shown.reals) for run, shown in zip(runs, grids, strict=True) if shown.reals]
    cards = len(runs) + len(reals)
    layout = {name: columns(cards, most) for name, most in _MOST_COLUMNS.items()}
    return Samples(
        runs=[
            RunSamples(
                name, shown, -1 if common is None or not shown.steps else list(shown.steps).index(common)
            )
            for name, shown in zip(run_names(runs), grids, strict=True)
        ],
        reals=reals,
        step=common,
        style="".join(f"--{name}:{across};--{name}-last:{last};" for name, (across, last) in layout.items()),
        room=" ".join(f"room-{name}" for name, (_, last) in layout.items() if last > 1),
    )


def columns(cards: int, most: int) -> tuple[int, int]:
    """In how many columns (``most`` or fewer) cards leave the fewest gaps, and how many columns the last card takes.

    The last card takes the rest of its row, so that no row ends early. Among equals, the other cards fill whole rows.
    """
    least = 1 if cards < most else most // 2 + 1
    across = min(
        range(least, min(most, cards) + 1),
        key=lambda count: (gaps := -cards % count, gaps > 0 and (cards - 1) % count > 0, -count),
    )
    return across, 1 + -cards % across

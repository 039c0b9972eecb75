"""Figs. 6 and 7 in full length: train FID of SNGAN-DAT on CIFAR-10 over eps, and over the number of attack steps K.

The paper gives the values, the net and two runs of each. Ours: that eps is divided by the batch size, as in the
released code, that each of the K steps is of size eps (the paper does not say whether eps is that of one step or of
all), and which step's FID is shown: the last one, with the best beside it in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.figure_style import COLOURS, INK, style_axes
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import Arm, arms_wanted, scores_of, train_all
from fastdat.experiments.images.thin_runs import FULL_FID, full_protocol
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import FIG6_BEST_EPS, FIG6_EPS, FIG7_BEST, FIG7_EPS, FIG7_STEPS
from fastdat.experiments.spent_time import timed
from fastdat.training.presets import preset

SEEDS = 2
"""Runs of each setting, as in the paper."""

_LAST, _BEST = "train FID, last step", "train FID, best step"


@dataclass(frozen=True)
class Setting:
    """A point of a figure: the size and the number of attack steps."""

    eps: float
    steps: int

    @property
    def arm(self) -> str:
        """The name of its arm."""
        return f"eps {self.eps:g}, K {self.steps}"


FIG6 = tuple(Setting(eps, 1) for eps in FIG6_EPS)
FIG7 = {eps: tuple(Setting(eps, steps) for steps in FIG7_STEPS) for eps in FIG7_EPS}


@timed
def run_fig6(options: Options, folder: Path) -> Outcome:
    """Fig. 6 in full length."""
    found, shared = _train("fig6", FIG6, options, folder)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    draw_curve(
        figure.subplots(), [setting.eps for setting in FIG6], _cells(FIG6, found), "perturbation level eps"
    )
    return Outcome(
        title="Fig. 6: train FID of SNGAN-DAT over the perturbation level",
        tables=(_table("Train FID by eps, K = 1", FIG6, found), *texts.divergences(found, best=True)),
        findings=tuple(_best("eps", FIG6, found, f"eps {FIG6_BEST_EPS:g}")),
        figures={"": figure},
        **shared,
    )


@timed
def run_fig7(options: Options, folder: Path) -> Outcome:
    """Fig. 7 in full length."""
    settings = [setting for part in FIG7.values() for setting in part]
    found, shared = _train("fig7", settings, options, folder)
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    panels = figure.subplots(1, len(FIG7), sharey=True)
    for axes, (eps, part) in zip(panels, FIG7.items(), strict=True):
        draw_curve(
            axes, [setting.steps for setting in part], _cells(part, found), "number of perturbations K"
        )
        axes.set_title(f"eps = {eps:g}", color=INK, fontsize=11)
        axes.set_xticks([setting.steps for setting in part])
    tables = tuple(_table(f"Train FID by K, eps = {eps:g}", part, found) for eps, part in FIG7.items())
    return Outcome(
        title="Fig. 7: train FID of SNGAN-DAT over the number of perturbations",
        tables=(*tables, *texts.divergences(found, best=True)),
        findings=tuple(_best("setting", settings, found, f"eps {FIG7_BEST[0]:g}, K {FIG7_BEST[1]}")),
        figures={"": figure},
        **shared,
    )


def arms_of(settings: Sequence[Setting]) -> tuple[Arm, ...]:
    """One arm for each setting."""
    base = preset("sngan-dat-cifar10").replace({"eval": FULL_FID})
    return tuple(Arm(s.arm, base.replace({"dat.eps": s.eps, "dat.steps": s.steps})) for s in settings)


def draw_curve(axes: Axes, x: Sequence[float], cells: Sequence[Runs | None], xlabel: str) -> None:
    """The mean over runs, a band between the least and the greatest of them, and each run as a dot."""
    points = [(at, cell) for at, cell in zip(x, cells, strict=True) if cell is not None]
    places = [at for at, _ in points]
    colour = COLOURS[1]
    axes.plot(places, [cell.mean for _, cell in points], color=colour, linewidth=1.8)
    low, high = [min(c.values) for _, c in points], [max(c.values) for _, c in points]
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    for at, cell in points:
        axes.plot([at] * len(cell.values), cell.values, "o", color=colour, ms=4)
    style_axes(axes)
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel("train FID, last step", color=INK)


def _train(
    name: str, settings: Sequence[Setting], options: Options, folder: Path
) -> tuple[texts.Found, dict[str, Any]]:
    """The runs of all settings, and what both figures say alike."""
    arms, seeds = arms_wanted(arms_of(settings), options.only), options.seeds or SEEDS
    found = train_all(arms, seeds, options, folder)
    return found, {
        "name": name,
        "quick": False,
        "command": texts.command(name, options, seeds),
        "protocol": (
            full_protocol(arms[0].config),
            "Curve and findings are of the last step. eps is divided by the batch size, 64, as in the released code; "
            "each of the K steps is of size eps. The paper says neither.",
        ),
        "notes": ("The figure's points are not printed as numbers.",),
        "config": texts.settings(arms, seeds),
        "details": texts.details(found),
        "origin": texts.origin(found),
    }


def _cells(settings: Sequence[Setting], found: texts.Found) -> list[Runs | None]:
    cells = [scores_of(found.get(setting.arm, ()), "fid") for setting in settings]
    return [cell if isinstance(cell, Runs) else None for cell in cells]


def _table(title: str, settings: Sequence[Setting], found: texts.Found) -> ResultTable:
    rows = []
    for setting in settings:
        runs = found.get(setting.arm, ())
        cells = {_LAST: scores_of(runs, "fid"), _BEST: scores_of(runs, "fid", which="best")}
        rows.append(Row(setting.arm, cells))
    return ResultTable(
        f"{title} (inception-v3-compat)", "setting", (Column(_LAST), Column(_BEST)), tuple(rows)
    )


def _best(what: str, settings: Sequence[Setting], found: texts.Found, paper: str) -> Iterator[str]:
    """The best setting beside the paper's."""
    measured = {
        s.arm: cell for s, cell in zip(settings, _cells(settings, found), strict=True) if cell is not None
    }
    if len(measured) > 1:
        best = min(measured, key=lambda arm: measured[arm].mean)
        worst = max(measured, key=lambda arm: measured[arm].mean)
        yield (
            f"The best {what} by the last step's train FID is {best}: {texts.number(measured[best])}; the paper's is "
            f"{paper}. The worst is {worst}: {texts.number(measured[worst])}."
        )

"""A figure of what a study found over one setting of the attack, as in Figs. 6 and 7: a curve with a band of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastdat.data.mixture import MEANS, Mixture
from fastdat.experiments.figure_style import COLOURS, INK, draw_band, style_axes
from fastdat.experiments.points.study import Arm
from fastdat.experiments.points.study_record import mean_and_std
from fastdat.experiments.points.study_tables import MEASURES, values_of

#: Each measure's name at its axis, and its range.
_AXES = {
    "modes": ("modes found", (0.0, float(len(MEANS)))),
    "quality": ("quality", (0.0, 1.0)),
    "KL": ("KL, nats", (0.0, inf)),
}


@dataclass(frozen=True)
class Sweep:
    """A column of panels.

    Args:
        title: stands above it; may be empty.
        x: values of the setting.
        arms: the arm of each value.
    """

    title: str
    x: Sequence[float]
    arms: Sequence[Arm]


def draw_sweeps(
    sweeps: Sequence[Sweep], mixtures: Sequence[Mixture], xlabel: str, without: Arm | None
) -> Figure:
    """Rows: modes, quality and KL at the end of the training. Columns: the sweeps. Curves: the mixtures.

    Args:
        sweeps: from left to right.
        mixtures: of the study.
        xlabel: name of the setting.
        without: an arm without it, drawn as a dashed line.
    """
    figure = Figure(figsize=(1.2 + 4.2 * len(sweeps), 6.4), layout="constrained")
    panels = figure.subplots(len(MEASURES), len(sweeps), sharex="col", sharey="row", squeeze=False)
    for row, what in zip(panels, MEASURES, strict=True):
        for axes, sweep in zip(row, sweeps, strict=True):
            _draw(axes, sweep, mixtures, what, without)
        label, (_, top) = _AXES[what]
        row[0].set_ylabel(label, color=INK, fontsize=10.5)
        row[0].set_ylim(0, 1.04 * top if isfinite(top) else None)  # ends autoscaling: after the last curve
    for axes, sweep in zip(panels[0], sweeps, strict=True):
        axes.set_title(sweep.title, color=INK, fontsize=11)
    panels[0][0].set_yticks((0, 3, 6, 9))
    for axes in panels[-1]:
        axes.set_xlabel(xlabel, color=INK, fontsize=10.5)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=2 * len(sweeps),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    return figure


def _draw(axes: Axes, sweep: Sweep, mixtures: Sequence[Mixture], what: str, without: Arm | None) -> None:
    limits = _AXES[what][1]
    for mixture, colour in zip(mixtures, COLOURS[1:], strict=False):
        found = [mean_and_std(values_of(arm.last.coverage[mixture.name])[what]) for arm in sweep.arms]
        draw_band(axes, sweep.x, found, colour, mixture.name, limits=limits, marker="o")
        if without is not None:
            level, _ = mean_and_std(values_of(without.last.coverage[mixture.name])[what])
            label = f"{mixture.name}, {without.name}"
            axes.axhline(level, color=colour, linewidth=1.0, linestyle=(0, (4, 3)), label=label)
    style_axes(axes)
    axes.set_xticks(sweep.x)
    axes.xaxis.set_major_formatter("{x:g}")

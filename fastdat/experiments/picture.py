"""Fig. 3 as a picture: real and generated points of every arm at every checkpoint, and modes found on the way."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Circle
from torch import Tensor

from fastdat.data.mixture import MEANS, STD, Mixture
from fastdat.experiments.plan import SHOWN
from fastdat.experiments.report import mean_and_std
from fastdat.experiments.results import Result
from fastdat.metrics.modes import NEAR
from fastdat.util.files import write_atomically

_INK, _FAINT = "#3d4451", "#b8bec8"
_COLOURS = ("#c2402c", "#1f6fb2", "#14866d")
_LIMIT = 1.6


def write(result: Result, path: Path) -> None:
    """Draw ``result`` and write it as PNG."""
    content = io.BytesIO()
    draw(result).savefig(content, format="png", dpi=150, facecolor="white")
    write_atomically(path, content.getvalue())


@dataclass(frozen=True)
class _Column:
    """One column of panels."""

    points: Sequence[Tensor]
    """(n, 2) a mixture."""
    title: str
    colour: str
    heading: str = ""
    """Stands above the title, for a group of columns."""


def draw(result: Result) -> Figure:
    """Rows: a mixture each, then modes found over iterations. Columns: real, then checkpoints arm by arm."""
    mixtures, columns = result.mixtures, _columns(result)
    widths = [1.0 if column else 0.14 for column in columns]
    figure = Figure(figsize=(1.28 * sum(widths), 1.28 * len(mixtures) + 2.9))
    above = {"left": 0.035, "right": 0.99, "top": 0.885, "bottom": 0.40, "wspace": 0.06, "hspace": 0.06}
    panels = GridSpec(len(mixtures), len(widths), figure, width_ratios=widths, **above)
    for row, mixture in enumerate(mixtures):
        for i, column in enumerate(columns):
            if column is None:
                continue
            axes = figure.add_subplot(panels[row, i])
            _panel(axes, column.points[row], column.colour)
            if i == 0:
                axes.set_ylabel(mixture.name, color=_INK, fontsize=12)
            if row == 0:
                axes.set_title(column.title, color=_INK, fontsize=11)
                style: dict[str, Any] = {
                    "ha": "center",
                    "fontsize": 13,
                    "weight": "bold",
                    "color": column.colour,
                }
                axes.annotate(column.heading, (0.5, 1.26), xycoords="axes fraction", **style)
    below = {"left": 0.06, "right": 0.978, "top": 0.31, "bottom": 0.105, "wspace": 0.12}
    curves = GridSpec(1, len(mixtures), figure, **below)
    for i, mixture in enumerate(mixtures):
        _curves(figure.add_subplot(curves[0, i]), result, mixture, leftmost=i == 0)
    return figure


def _columns(result: Result) -> list[_Column | None]:
    """From left to right; None is a gap."""
    real = [mixture.sample(SHOWN, torch.Generator().manual_seed(0)) for mixture in result.mixtures]
    columns: list[_Column | None] = [_Column(real, "real", _INK)]
    for arm, colour in zip(result.arms, _COLOURS, strict=True):
        columns.append(None)
        shown = [m for m in arm.measurements if m.points is not None]
        for k, measurement in enumerate(shown):
            assert measurement.points is not None
            heading = arm.name if k == len(shown) // 2 else ""
            columns.append(_Column(list(measurement.points), f"{measurement.iteration:,}", colour, heading))
    return columns


def _panel(axes: Axes, points: Tensor, colour: str) -> None:
    """Points over the circles within which they are of high quality."""
    x, y = points.T.numpy()
    axes.scatter(x, y, s=1.6, color=colour, alpha=0.35, linewidths=0)
    for mean in MEANS:
        axes.add_patch(Circle(mean, NEAR * STD, fill=False, edgecolor=_FAINT, linewidth=0.6))
    axes.set(xlim=(-_LIMIT, _LIMIT), ylim=(-_LIMIT, _LIMIT), xticks=[], yticks=[], aspect="equal")
    for side in axes.spines.values():
        side.set(color=_FAINT, linewidth=0.8)


def _curves(axes: Axes, result: Result, mixture: Mixture, leftmost: bool) -> None:
    """Modes found over iterations: mean and one standard deviation over seeds."""
    for number, arm in enumerate(result.arms):
        iterations = [m.iteration for m in arm.measurements]
        statistics = [mean_and_std(m.coverage[mixture.name].modes) for m in arm.measurements]
        mean, low, high = _band(statistics)
        axes.plot(iterations, mean, color=_COLOURS[number], label=arm.name, linewidth=1.8)
        axes.fill_between(iterations, low, high, color=_COLOURS[number], alpha=0.15, linewidth=0)
    axes.set(ylim=(0, 9.3), xlim=(0, result.config.iterations), yticks=(0, 3, 6, 9))
    axes.set_xlabel(f"iterations, {mixture.name}", color=_INK, fontsize=10.5)
    if leftmost:
        seeds = result.config.seeds
        axes.set_ylabel(f"modes found\n({seeds} seed{'s' * (seeds > 1)})", color=_INK, fontsize=10.5)
        axes.legend(loc="lower left", ncols=len(result.arms), frameon=False, fontsize=9.5, labelcolor=_INK)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(axis="y", color=_FAINT, linewidth=0.5, alpha=0.6)
    for name, side in axes.spines.items():
        side.set(visible=name in ("left", "bottom"), color=_FAINT)


def _band(statistics: Sequence[tuple[float, float]]) -> tuple[list[float], list[float], list[float]]:
    mean = [m for m, _ in statistics]
    return mean, [max(0.0, m - s) for m, s in statistics], [min(len(MEANS), m + s) for m, s in statistics]

"""The files of Fig. 3: a picture, a table for people, and all numbers as JSON for programs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Circle
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastdat.data.mixture import MEANS, STD, Mixture
from fastdat.experiments.points.mixture_study import SHOWN, StudyResult
from fastdat.experiments.points.study_record import as_dict, mean_and_std
from fastdat.metrics.modes import FOUND, NEAR
from fastdat.util.files import write_atomically

_LEGEND = (
    f"Mean ± standard deviation over seeds. modes: of {len(MEANS)}, with over {FOUND:g} of their due share. "
    f"quality: share of points within {NEAR:g} std of a mode. KL: of the modes' shares against the true ones, nats."
)
#: Colours of text, of frames and grid lines, and of the arms in their order.
INK, FAINT, COLOURS = "#3d4451", "#b8bec8", ("#c2402c", "#1f6fb2", "#14866d")
PICTURE_DPI = 150
_LIMIT = 1.6  # half the width of a panel, in units of the data


def write(result: StudyResult, config: Mapping[str, Any], outdir: Path) -> None:
    """Write fig3.json, fig3.txt and fig3.png into ``outdir``. ``config`` holds the experiment's settings."""
    record = json.dumps(as_dict(result, config), indent=1, allow_nan=False) + "\n"
    write_atomically(outdir / "fig3.json", record.encode())
    text = io.StringIO()
    show(result, Console(file=text, width=100))
    write_atomically(outdir / "fig3.txt", text.getvalue().encode())
    picture = io.BytesIO()
    draw(result).savefig(picture, format="png", dpi=PICTURE_DPI, facecolor="white")
    write_atomically(outdir / "fig3.png", picture.getvalue())


# --- the table -------------------------------------------------------------------------------------------------------


def show(result: StudyResult, console: Console | None = None) -> None:
    """Print the table and the lines below it."""
    console = console or Console()
    console.print(table(result))
    for line in lines(result):
        console.print(line, highlight=False)


def table(result: StudyResult) -> Table:
    """Coverage at the checkpoints: one section per mixture and arm, one row per checkpoint."""
    checkpoints = result.study.checkpoints
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("mixture", "arm", "iterations", "modes", "quality", "KL"):
        shown.add_column(heading, justify="left" if heading in ("mixture", "arm") else "right", no_wrap=True)
    for mixture in result.study.mixtures:
        for arm in result.arms:
            for iteration in checkpoints:
                found = arm.at(iteration).coverage[mixture.name]
                first = iteration == checkpoints[0]
                shown.add_row(
                    mixture.name if first and arm is result.arms[0] else "",
                    arm.name if first else "",
                    f"{iteration:,}",
                    _mean_and_std_text(found.modes, ".1f"),
                    _mean_and_std_text(found.high_quality, ".2f"),
                    _mean_and_std_text(found.kl, ".2f"),
                    end_section=iteration == checkpoints[-1],
                )
    return shown


def lines(result: StudyResult) -> Iterator[str]:
    """The lines below the table: its legend, and how long the training took."""
    yield _LEGEND
    for arm in result.arms:
        yield (
            f"{arm.name}: {arm.milliseconds:.2f} ms an iteration for all {arm.members} GANs, after "
            f"{arm.first_seconds:.0f} s for the first"
        )
    yield f"{result.seconds:.0f} s in all, {'compiled' if result.compiled else 'not compiled'}"


def _mean_and_std_text(values: Tensor, form: str) -> str:
    mean, std = mean_and_std(values)
    return f"{mean:{form}} ± {std:{form}}"


# --- the picture -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column of panels, one panel per mixture.

    Args:
        points: of each mixture (n, 2).
        title: stands above the column.
        colour: of the points.
        heading: stands above the title, for a group of columns; may be empty.
    """

    points: Sequence[Tensor]
    title: str
    colour: str
    heading: str = ""


def draw(result: StudyResult) -> Figure:
    """The figure. Rows: one per mixture, then curves of modes found. Columns: real points, then the checkpoints."""
    mixtures, columns = result.study.mixtures, _columns(result)
    figure, panels = panel_grid([column is not None for column in columns], len(mixtures))
    for row, mixture in enumerate(mixtures):
        for i, column in enumerate(columns):
            if column is None:
                continue
            axes = figure.add_subplot(panels[row, i])
            style_panel(axes)
            _draw_points(axes, column.points[row], column.colour)
            if i == 0:
                axes.set_ylabel(mixture.name, color=INK, fontsize=12)
            if row == 0:
                axes.set_title(column.title, color=INK, fontsize=11)
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
        _draw_modes(figure.add_subplot(curves[0, i]), result, mixture, leftmost=i == 0)
    return figure


def panel_grid(is_panel: Sequence[bool], rows: int) -> tuple[Figure, GridSpec]:
    """An empty figure and its grid of panels.

    Args:
        is_panel: for each column whether it holds panels; a column without panels is a narrow gap.
        rows: how many panels a column has.
    """
    widths = [1.0 if panel else 0.14 for panel in is_panel]
    figure = Figure(figsize=(1.28 * sum(widths), 1.28 * rows + 2.9))
    above = {"left": 0.035, "right": 0.99, "top": 0.885, "bottom": 0.40, "wspace": 0.06, "hspace": 0.06}
    return figure, GridSpec(rows, len(widths), figure, width_ratios=widths, **above)


def style_panel(axes: Axes) -> None:
    """A square panel with the range of the data, without ticks."""
    axes.set(xlim=(-_LIMIT, _LIMIT), ylim=(-_LIMIT, _LIMIT), xticks=[], yticks=[], aspect="equal")
    for side in axes.spines.values():
        side.set(color=FAINT, linewidth=0.8)


def style_modes_axes(axes: Axes, iterations: int) -> None:
    """Axes for modes found over iterations."""
    axes.set(ylim=(0, 9.3), xlim=(0, iterations), yticks=(0, 3, 6, 9))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.6)
    for name, side in axes.spines.items():
        side.set(visible=name in ("left", "bottom"), color=FAINT)


def draw_band(
    axes: Axes, iterations: Sequence[int], statistics: Sequence[tuple[float, float]], colour: str, label: str
) -> None:
    """A curve of means, and a band of one standard deviation around it, cut off at 0 and at all modes."""
    mean = [m for m, _ in statistics]
    low = [max(0.0, m - s) for m, s in statistics]
    high = [min(len(MEANS), m + s) for m, s in statistics]
    axes.plot(iterations, mean, color=colour, label=label, linewidth=1.8)
    axes.fill_between(iterations, low, high, color=colour, alpha=0.15, linewidth=0)


def _columns(result: StudyResult) -> list[_Column | None]:
    """The columns from left to right; None is a gap."""
    real = [mixture.sample(SHOWN, torch.Generator().manual_seed(0)) for mixture in result.study.mixtures]
    columns: list[_Column | None] = [_Column(real, "real", INK)]
    for arm, colour in zip(result.arms, COLOURS, strict=True):
        columns.append(None)
        shown = [m for m in arm.measurements if m.points is not None]
        for k, measurement in enumerate(shown):
            assert measurement.points is not None
            heading = arm.name if k == len(shown) // 2 else ""
            columns.append(_Column(list(measurement.points), f"{measurement.iteration:,}", colour, heading))
    return columns


def _draw_points(axes: Axes, points: Tensor, colour: str) -> None:
    """Points, and for each mode the circle inside which a point is of high quality."""
    x, y = points.T.numpy()
    axes.scatter(x, y, s=1.6, color=colour, alpha=0.35, linewidths=0)
    for mean in MEANS:
        axes.add_patch(Circle(mean, NEAR * STD, fill=False, edgecolor=FAINT, linewidth=0.6))


def _draw_modes(axes: Axes, result: StudyResult, mixture: Mixture, leftmost: bool) -> None:
    """Modes found over iterations, mean and standard deviation over seeds, one curve per arm."""
    for arm, colour in zip(result.arms, COLOURS, strict=True):
        iterations = [m.iteration for m in arm.measurements]
        statistics = [mean_and_std(m.coverage[mixture.name].modes) for m in arm.measurements]
        draw_band(axes, iterations, statistics, colour, arm.name)
    style_modes_axes(axes, result.study.iterations)
    axes.set_xlabel(f"iterations, {mixture.name}", color=INK, fontsize=10.5)
    if leftmost:
        seeds = result.study.seeds
        axes.set_ylabel(f"modes found\n({seeds} seed{'s' * (seeds > 1)})", color=INK, fontsize=10.5)
        axes.legend(loc="lower left", ncols=len(result.arms), frameon=False, fontsize=9.5, labelcolor=INK)

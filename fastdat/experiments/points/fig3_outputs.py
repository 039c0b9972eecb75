"""The files of Fig. 3: the paper's picture, its numbers as a table, and all of them as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from torch import Tensor

from fastdat.data.mixture import MEANS, Mixture
from fastdat.experiments import outcome_files
from fastdat.experiments.figure_style import (
    COLOURS,
    INK,
    draw_band,
    draw_points,
    style_axes,
    style_panel,
)
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row
from fastdat.experiments.points.fig3 import FULL
from fastdat.experiments.points.study import SHOWN, Arm, StudyResult
from fastdat.experiments.points.study_record import as_dict, mean_and_std
from fastdat.experiments.points.study_tables import cells, columns, mean, means_words, protocol

_NOTES = (
    "The paper prints 0.1 as the variance, but then modes 1 apart would overlap: 0.1 is taken as the standard "
    "deviation.",
    'Its "four-layer" MLP is read as four hidden layers; its learning rate, z, loss, initial weights and number of D '
    "steps are not given. With torch's smaller initial weights (`--init torch`) the GAN without an attack loses fewer "
    "modes.",
    'The shares "0.15, 0.05, 0.8 from left to right" are those of the columns.',
    "The third arm, which lets the gradient flow through the perturbation (Eqs. 12-15 in full), is not in the paper's "
    "figure.",
)
#: An arm is as good as done where it finds this many modes on average.
_NEARLY_ALL = 8.0


def write(result: StudyResult, config: Mapping[str, Any], outdir: Path) -> str:
    """Write the files of :func:`outcome` into ``outdir``; fig3.json also holds every measurement.

    Args:
        result: what was found.
        config: the experiment's settings.
        outdir: folder of the files.

    Returns:
        The page, fig3.md.
    """
    found = outcome(result, config)
    outcome_files.write(found, outdir, further=as_dict(result, config))
    return outcome_files.markdown(outcome_files.as_record(found))


def outcome(result: StudyResult, config: Mapping[str, Any]) -> Outcome:
    """Coverage at the checkpoints, beside the picture. ``config`` holds the experiment's settings."""
    study = result.study
    iterations, shorter = study.iterations, study.iterations < FULL
    mixtures = " and ".join(mixture.name for mixture in study.mixtures)
    rows = tuple(
        Row(f"{arm.name}, {iteration:,}", cells(arm.at(iteration).coverage))
        for arm in result.arms
        for iteration in study.checkpoints
    )
    table = ResultTable(f"Nine Gaussians, {mixtures}", "arm, iterations", columns(study.mixtures), rows)
    speed = tuple(Row(arm.name, {"ms": arm.milliseconds, "first, s": arm.times.first}) for arm in result.arms)
    columns_of_speed = (Column("ms", 2), Column("first, s", 0))
    title = f"Time of one iteration of all {result.arms[0].members} GANs, and of the first, which compiles"
    return Outcome(
        name="fig3",
        title=f"Fig. 3, scaled down: {iterations:,} of {FULL:,} iterations" if shorter else "Fig. 3",
        quick=shorter,
        command=_command(config),
        protocol=protocol(result),
        tables=(table, ResultTable(title, "arm", columns_of_speed, speed)),
        findings=tuple(findings(result)),
        notes=_NOTES,
        config=as_dict(result, config)["config"],
        details={},
        figures={"": draw(result)},
        seconds=result.seconds,
        origin=result.origin,
    )


def findings(result: StudyResult) -> Iterator[str]:
    """What the measurements say, one sentence each."""
    study = result.study
    found = "; ".join(f"{arm.name} {means_words(arm.last, 'modes')}" for arm in result.arms)
    mixtures = ", ".join(mixture.name for mixture in study.mixtures)
    yield f"Modes found of {len(MEANS)} after {study.iterations:,} iterations ({mixtures}): {found}."
    when = "; ".join(f"{arm.name} {_reached(arm)}" for arm in result.arms)
    yield f"{_NEARLY_ALL:g} modes or more, mean of all GANs, at every measurement from some iteration on: {when}."


def _reached(arm: Arm) -> str:
    """Early points are blurred and lie near every mode, so an arm may find all modes first and lose some later."""
    missed = [m.iteration for m in arm.measurements if mean(m, "modes") < _NEARLY_ALL]
    at = next((m.iteration for m in arm.measurements if not missed or m.iteration > missed[-1]), None)
    return "never" if at is None else f"from {at:,}"


def _command(config: Mapping[str, Any]) -> str:
    length = "--full" if config["iterations"] == FULL else f"--iterations {config['iterations']}"
    init = "" if config["init"] == "kaiming" else f" --init {config['init']}"
    compile = "" if config["compile"] else " --no-compile"
    return f"fastdat reproduce fig3 {length} --seeds {config['seeds']}{init}{compile}"


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
            draw_points(axes, column.points[row], column.colour)
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
        _draw_curves(figure.add_subplot(curves[0, i]), result, mixture, leftmost=i == 0)
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


def style_modes_axes(axes: Axes, iterations: int) -> None:
    """Axes for modes found over iterations."""
    axes.set(ylim=(0, 9.3), xlim=(0, iterations), yticks=(0, 3, 6, 9))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    style_axes(axes)


def draw_modes(
    axes: Axes, iterations: Sequence[int], statistics: Sequence[tuple[float, float]], colour: str, label: str
) -> None:
    """Modes found over iterations, as :func:`draw_band` of figure_style draws it."""
    draw_band(axes, iterations, statistics, colour, label, limits=(0.0, len(MEANS)))


def _columns(result: StudyResult) -> list[_Column | None]:
    """The columns from left to right; None is a gap."""
    real = [mixture.sample(SHOWN, torch.Generator().manual_seed(0)) for mixture in result.study.mixtures]
    columns: list[_Column | None] = [_Column(real, "real", INK)]
    for arm, colour in zip(result.arms, COLOURS[: len(result.arms)], strict=True):
        columns.append(None)
        shown = [m for m in arm.measurements if m.points is not None]
        for k, measurement in enumerate(shown):
            assert measurement.points is not None
            heading = arm.name if k == len(shown) // 2 else ""
            columns.append(_Column(list(measurement.points), f"{measurement.iteration:,}", colour, heading))
    return columns


def _draw_curves(axes: Axes, result: StudyResult, mixture: Mixture, leftmost: bool) -> None:
    """Modes found over iterations, mean and standard deviation over seeds, one curve per arm."""
    for arm, colour in zip(result.arms, COLOURS[: len(result.arms)], strict=True):
        iterations = [m.iteration for m in arm.measurements]
        statistics = [mean_and_std(m.coverage[mixture.name].modes) for m in arm.measurements]
        draw_modes(axes, iterations, statistics, colour, arm.name)
    style_modes_axes(axes, result.study.iterations)
    axes.set_xlabel(f"iterations, {mixture.name}", color=INK, fontsize=10.5)
    if leftmost:
        seeds = result.study.seeds
        axes.set_ylabel(f"modes found\n({seeds} seed{'s' * (seeds > 1)})", color=INK, fontsize=10.5)
        axes.legend(loc="lower left", ncols=len(result.arms), frameon=False, fontsize=9.5, labelcolor=INK)

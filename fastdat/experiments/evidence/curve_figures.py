"""Figures of a study of curves: scores over the training with bands, scores over a setting, samples of median runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from fastdat.experiments.evidence.curve_groups import Group
from fastdat.experiments.evidence.curve_numbers import band, score_of
from fastdat.experiments.figure_style import COLOURS, FAINT, INK, draw_band, look, style_axes
from fastdat.experiments.images.study_texts import Found
from fastdat.experiments.outcome import Runs

YLABEL = "KID, EfficientNet-Lite0"
_PANELS = 3
"""Panels in a row."""


@dataclass(frozen=True)
class SweepLines:
    """Arms that differ in one setting, as curves over it.

    Args:
        label: of the axis.
        lines: name of a curve -> (setting, name of the arm), in the order of the settings.
        base: an arm without the setting, drawn as a level line; empty if there is none.
        logarithmic: the axis of the setting.
    """

    label: str
    lines: Mapping[str, Sequence[tuple[float, str]]]
    base: str = ""
    logarithmic: bool = True


def draw_curves(found: Found, groups: Sequence[Group]) -> Figure:
    """A panel for each group: the mean of each arm's scores over the training, and a band of one standard deviation.

    An arm looks alike in all panels, by its name in its group.
    """
    across = min(len(groups), _PANELS)
    down = math.ceil(len(groups) / across)
    figure = Figure(figsize=(max(6.8, 3.6 * across), 4.2 if down == 1 else 3.2 * down), layout="constrained")
    # All panels have one scale, so that they can be compared; a curve may leave it at the top.
    bottom, top = _range(found)
    labels = list(dict.fromkeys(group.label(arm.name) for group in groups for arm in group.arms))
    for i, group in enumerate(groups):
        axes = figure.add_subplot(down, across, i + 1)
        style_axes(axes)
        for arm in group.arms:
            points = band(found.get(arm.name, ()))
            if points:
                k = labels.index(group.label(arm.name))
                colour, style = look(k)
                draw_band(
                    axes,
                    list(points),
                    list(points.values()),
                    colour,
                    labels[k],
                    limits=(0.0, math.inf),
                    marker="o",
                    style=style,
                )
        axes.set_ylim(bottom, top)
        axes.set_xlabel("G steps", color=INK)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if i % across == 0:
            axes.set_ylabel(YLABEL, color=INK)
        if group.name:
            axes.set_title(group.name, color=INK, fontsize=10)
    drawn = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    if drawn:
        lines = [drawn[label] for label in labels if label in drawn]
        if len(lines) <= len(COLOURS):
            figure.axes[0].legend(handles=lines, frameon=False, labelcolor=INK, fontsize=9)
        else:
            figure.legend(handles=lines, frameon=False, labelcolor=INK, fontsize=9, loc="outside right upper")
    return figure


def _range(found: Found) -> tuple[float, float]:
    """The ends of the axis: around all bands from the second score on, since the first one dwarfs the others."""
    bands = [point for runs in found.values() for point in list(band(runs).values())[1:]]
    if not bands:
        return 0.0, 1.0
    low, high = min(m - s for m, s in bands), max(m + s for m, s in bands)
    margin = 0.05 * (high - low) or 0.05 * high or 1.0
    return max(0.0, low - margin), high + margin


def draw_sweep(found: Found, sweep: SweepLines) -> Figure:
    """The score of each arm over the setting: mean and a band of one standard deviation, a dot for each run."""
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes)
    colours = iter(COLOURS)
    if sweep.base:
        base, colour = score_of(found, sweep.base), next(colours)
        if isinstance(base, Runs):
            axes.axhline(base.mean, color=colour, linewidth=1.4, linestyle="--", label=sweep.base)
            spread = base.std or 0.0
            axes.axhspan(base.mean - spread, base.mean + spread, color=colour, alpha=0.12, linewidth=0)
    for (name, arms), colour in zip(sweep.lines.items(), colours, strict=False):
        scores = [(x, score_of(found, arm)) for x, arm in arms]
        known = [(x, score) for x, score in scores if isinstance(score, Runs)]
        if known:
            statistics = [(score.mean, score.std or 0.0) for _, score in known]
            draw_band(axes, [x for x, _ in known], statistics, colour, name, limits=(0, math.inf), marker="o")
            dots = [(x, value) for x, score in known for value in score.values]
            x, y = zip(*dots, strict=True)
            axes.scatter(x, y, color=colour, s=10, alpha=0.6, linewidths=0)
    if sweep.logarithmic:
        axes.set_xscale("log")
    ticks = sorted({x for arms in sweep.lines.values() for x, _ in arms})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(sweep.label, color=INK)
    axes.set_ylabel(YLABEL, color=INK)
    if axes.has_data():
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def draw_samples(pictures: Mapping[str, Tensor]) -> Figure:
    """The samples of the median run of each arm.

    Args:
        pictures: title -> pixels (H, W, 3), uint8, of equal sizes.
    """
    across = 1 if len(pictures) == 1 else 2
    down = math.ceil(len(pictures) / across)
    figure = Figure(figsize=(5.4 * across, 3.1 * down), layout="constrained")
    for i, (title, pixels) in enumerate(pictures.items()):
        axes = figure.add_subplot(down, across, i + 1)
        axes.imshow(pixels.numpy(), interpolation="none")
        axes.set_title(title, color=INK, fontsize=10)
        axes.set(xticks=[], yticks=[])
        for side in axes.spines.values():
            side.set(color=FAINT, linewidth=0.8)
    return figure

"""Radar charts: one ray for each setting, one polygon for each arm; nearer to the origin is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastdat.experiments.figure_style import FAINT, INK

_RIM = 1.08  # of the greatest value


def draw_radar(
    axes: Any, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], colours: Sequence[str]
) -> None:
    """Draw ``series`` into polar axes.

    Args:
        axes: with ``projection="polar"``.
        labels: one for each ray, counterclockwise from the top.
        series: values of each arm on the rays; None for a value that does not exist, which is drawn as a cross on the
            rim.
        colours: of the arms in their order.
    """
    angles = [2 * math.pi * i / len(labels) for i in range(len(labels))]
    values = [v for arm in series.values() for v in arm if v is not None]
    rim = _RIM * max(values, default=1.0)
    for (name, arm), colour in zip(series.items(), colours, strict=False):
        radii = [rim if v is None else v for v in arm]
        axes.plot(
            [*angles, angles[0]],
            [*radii, radii[0]],
            color=colour,
            linewidth=1.8,
            marker="o",
            ms=4,
            label=name,
        )
        axes.fill(angles, radii, color=colour, alpha=0.08)
        missing = [angle for angle, v in zip(angles, arm, strict=True) if v is None]
        axes.plot(missing, [rim] * len(missing), "x", color=colour, ms=9, mew=2)
    axes.set_theta_zero_location("N")
    axes.set(ylim=(0, rim), xticks=angles)
    axes.set_xticklabels(labels, color=INK, fontsize=10)
    axes.tick_params(axis="y", labelsize=8, labelcolor=INK)
    axes.tick_params(axis="x", pad=8)
    axes.set_rlabel_position(180 / len(labels))  # between two rays
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines["polar"].set(color=FAINT)

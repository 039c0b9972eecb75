"""The look that all figures share: colours, axes, curves with a band, panels of points from a mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Circle
from torch import Tensor

from fastdat.data.mixture import BALANCED, Mixture
from fastdat.metrics.modes import NEAR

#: Colours of text, and of frames and grid lines.
INK, FAINT = "#3d4451", "#b8bec8"
#: Colours of the arms in their order; the first one is the arm without attack, the second one is DAT.
COLOURS = ("#c2402c", "#1f6fb2", "#14866d", "#b7791f", "#7b4fa3", "#6b7280")
_STYLES = ("-", "--", ":")
_LIMIT = 1.6  # half the width of a panel of points, in units of the data


def look(k: int) -> tuple[str, str]:
    """Colour and line style of the arm number ``k``: there are six colours, and each has three styles."""
    return COLOURS[k % len(COLOURS)], _STYLES[k // len(COLOURS) % len(_STYLES)]


def style_axes(axes: Axes) -> None:
    """Axes for curves: left and bottom lines only, and a faint grid for the values."""
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.6)
    for name, side in axes.spines.items():
        side.set(visible=name in ("left", "bottom"), color=FAINT)


def style_panel(axes: Axes) -> None:
    """A square panel with the range of all mixtures, without ticks."""
    axes.set(xlim=(-_LIMIT, _LIMIT), ylim=(-_LIMIT, _LIMIT), xticks=[], yticks=[], aspect="equal")
    for side in axes.spines.values():
        side.set(color=FAINT, linewidth=0.8)


def draw_points(axes: Axes, points: Tensor, colour: str, mixture: Mixture = BALANCED) -> None:
    """Points (n, 2), and for each mode of ``mixture`` the circle inside which a point is of high quality."""
    x, y = points.T.numpy()
    axes.scatter(x, y, s=1.6, color=colour, alpha=0.35, linewidths=0, rasterized=True)
    for mean in mixture.means:
        axes.add_patch(Circle(mean, NEAR * mixture.std, fill=False, edgecolor=FAINT, linewidth=0.6))


def draw_band(
    axes: Axes,
    x: Sequence[float],
    statistics: Sequence[tuple[float, float]],
    colour: str,
    label: str,
    *,
    limits: tuple[float, float] = (-math.inf, math.inf),
    marker: str = "",
    style: str = "-",
) -> None:
    """A curve of means, and a band of one standard deviation around it.

    Args:
        axes: where it is drawn.
        x: positions of the values, for example iterations.
        statistics: mean and standard deviation at each of them.
        colour: of curve and band.
        label: of the curve, for a legend.
        limits: the range of possible values, at which the band is cut off.
        marker: matplotlib's name of the marker at each value; none if empty.
        style: matplotlib's name of the style of the line.
    """
    low, high = limits
    means = [m for m, _ in statistics]
    axes.plot(x, means, color=colour, label=label, linewidth=1.8, linestyle=style, marker=marker, ms=4)
    below, above = [max(low, m - s) for m, s in statistics], [min(high, m + s) for m, s in statistics]
    axes.fill_between(x, below, above, color=colour, alpha=0.15, linewidth=0)

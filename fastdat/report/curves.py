"""The lines of a chart: the values of one run, and their running mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = tuple[NDArray[np.float64], NDArray[np.float64]]

_MOST_POINTS = 600  # of one line; a chart on a screen is not wider in pixels
_WINDOWS_PER_RUN = 50  # a run is this many times as long as the window of its running mean
_SMOOTHED_FROM = 20  # values; shorter lines have no running mean


@dataclass(frozen=True)
class Line:
    """One statistic of one run over its steps.

    Args:
        run: position of the run on the page, which decides its colour.
        steps, values: of equal length, sorted by step.
        dashed: whether the line is dashed, as it is for fakes where the solid line shows reals.
        smooth: whether to draw a running mean over the values, which become faint. If not, every value has a marker.
    """

    run: int
    steps: Sequence[int]
    values: Sequence[float]
    dashed: bool = False
    smooth: bool = True

    @property
    def smoothed(self) -> bool:
        """Whether a running mean is drawn; it needs at least 20 values."""
        return self.smooth and len(self.values) >= _SMOOTHED_FROM

    def points(self) -> Points:
        """Steps and values. Of a very long line, only the minimum and maximum of each of 300 equal parts."""
        x, y = np.asarray(self.steps, np.float64), np.asarray(self.values, np.float64)
        if len(x) <= _MOST_POINTS:
            return x, y
        kept: set[int] = {0, len(x) - 1}
        for part in np.array_split(np.arange(len(x)), _MOST_POINTS // 2):
            kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
        chosen = sorted(kept)
        return x[chosen], y[chosen]

    def running_mean(self) -> Points:
        """Steps and the centred mean over :func:`window` values; at both ends, over the values that exist."""
        x, y = np.asarray(self.steps, np.float64), np.asarray(self.values, np.float64)
        half, index = window(len(y)) // 2, np.arange(len(y))
        start, end = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))
        # The sums are of differences to the first value: a constant line stays exactly constant. Otherwise its
        # rounding errors would fill the chart, whose axis fits the values.
        total = np.concatenate([[0.0], np.cumsum(y - y[0])])
        mean = y[0] + (total[end] - total[start]) / (end - start)
        chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), _MOST_POINTS)).astype(int))
        return x[chosen], mean[chosen]

    def description(self) -> str:
        """First, last, smallest and greatest value in words, for readers who do not see the chart."""
        y = self.values
        return f"from {y[0]:.3g} to {y[-1]:.3g}, least {min(y):.3g}, greatest {max(y):.3g}"


def window(count: int) -> int:
    """The width of the running mean for ``count`` values: an odd number of values."""
    return count // _WINDOWS_PER_RUN // 2 * 2 + 1 if count >= 3 * _WINDOWS_PER_RUN else 3


def wants_log_scale(lines: Sequence[Line]) -> bool:
    """Whether all values are positive and the greatest is more than ten times the smallest."""
    values = [value for line in lines for value in line.values]
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)

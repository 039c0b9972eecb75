"""The lines of a chart: the values of one run, and their running mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = tuple[NDArray[np.float64], NDArray[np.float64]]

_MOST_POINTS = 600  # of one line; a chart on a screen is hardly wider in pixels
_WINDOWS_PER_RUN = 50  # a run is this many times as long as the window of its running mean
_SMOOTHED_FROM = 20  # values; shorter lines have no running mean
_MARKED_BELOW = 60  # values; the markers of longer lines would touch each other


@dataclass(frozen=True)
class Line:
    """One statistic of one run over its steps.

    Args:
        run: position of the run on the page, which decides its colour.
        steps, values: of equal length, sorted by step.
        dashed: whether the line is dashed, as it is for fakes where the solid line shows reals.
        smooth: whether to draw a running mean over the values, which become faint. If not, the values have markers.
        errors: of each value, drawn as a band; None where unknown. Empty: no errors are known.
    """

    run: int
    steps: Sequence[int]
    values: Sequence[float]
    dashed: bool = False
    smooth: bool = True
    errors: Sequence[float | None] = ()

    @property
    def smoothed(self) -> bool:
        """Whether a running mean is drawn; it needs at least 20 values."""
        return self.smooth and len(self.values) >= _SMOOTHED_FROM

    @property
    def marked(self) -> bool:
        """Whether each value has a marker: a single one, which makes no line, and those that are few by nature."""
        return len(self.values) == 1 or (not self.smooth and len(self.values) < _MARKED_BELOW)

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

    def stretches_with_errors(self) -> list[list[tuple[int, float, float]]]:
        """Step, value and error of consecutive values whose errors are known, in stretches of at least two values."""
        stretches: list[list[tuple[int, float, float]]] = [[]]
        for step, value, error in zip(self.steps, self.values, self.errors, strict=bool(self.errors)):
            if error is None:
                stretches.append([])
            else:
                stretches[-1].append((step, value, error))
        return [stretch for stretch in stretches if len(stretch) > 1]

    def extent(self) -> tuple[float, float]:
        """The smallest and the greatest value, with the band of errors."""
        band = [
            bound
            for stretch in self.stretches_with_errors()
            for _, v, e in stretch
            for bound in (v - e, v + e)
        ]
        return min([*self.values, *band]), max([*self.values, *band])

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

"""Lines to draw from the numbers of a run: every value, faintly, and a running mean over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = tuple[NDArray[np.float64], NDArray[np.float64]]

_DRAWN = 600  # points of a line: more than a screen shows of a chart
_WINDOW = 50  # the running mean spans this fraction of a run
_FEW = 20  # fewer values are drawn as they are


@dataclass(frozen=True)
class Line:
    """One run's values of one statistic over its steps.

    Args:
        run: the run's number, which is its colour.
        steps, values: of equal length, in the order of the steps.
        dashed: the statistic's fakes, where solid is its reals.
        smooth: draw the running mean over faint values; else the values, each marked.
    """

    run: int
    steps: Sequence[int]
    values: Sequence[float]
    dashed: bool = False
    smooth: bool = True

    @property
    def smoothed(self) -> bool:
        """Whether there are values enough for a running mean."""
        return self.smooth and len(self.values) >= _FEW

    def raw(self) -> Points:
        """All values; where there are very many, the least and greatest of each of equal parts."""
        x, y = np.asarray(self.steps, np.float64), np.asarray(self.values, np.float64)
        if len(x) <= _DRAWN:
            return x, y
        kept: set[int] = {0, len(x) - 1}
        for part in np.array_split(np.arange(len(x)), _DRAWN // 2):
            kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
        chosen = sorted(kept)
        return x[chosen], y[chosen]

    def mean(self) -> Points:
        """The running mean over :func:`window` values, centred; at the ends over those of them that there are."""
        x, y = np.asarray(self.steps, np.float64), np.asarray(self.values, np.float64)
        half, index = window(len(y)) // 2, np.arange(len(y))
        first, past = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))
        # From the first value on, so that a constant has no rounding for the chart to show as a curve.
        total = np.concatenate([[0.0], np.cumsum(y - y[0])])
        mean = y[0] + (total[past] - total[first]) / (past - first)
        chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), _DRAWN)).astype(int))
        return x[chosen], mean[chosen]

    def in_words(self) -> str:
        """First, last, least and greatest value, for those who do not see the chart."""
        y = self.values
        return f"from {y[0]:.3g} to {y[-1]:.3g}, least {min(y):.3g}, greatest {max(y):.3g}"


def window(count: int) -> int:
    """Values, an odd number, that the running mean of ``count`` values spans."""
    return count // _WINDOW // 2 * 2 + 1 if count >= 3 * _WINDOW else 3


def wants_log(lines: Sequence[Line]) -> bool:
    """Whether the values are all positive and span more than a decade."""
    values = [value for line in lines for value in line.values]
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)

"""Charts as inline SVG. Their colours are CSS variables of the page, so that they follow its light or dark theme.

The SVG holds only lines, and is stretched to the box of the chart; the texts at the axes are HTML beside it. So the
text is as large as any other text of the page, on a phone as on a wide screen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fastdat.report.axis import Axis, step_axis, value_axis
from fastdat.report.curves import Line, Points, wants_log_scale

SIZE = 1000
"""Width and height of a drawing in its own units."""

_MOST_TICKS = 5  # of an axis; as many as a phone has room for

Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Drawing:
    """A chart without its title.

    Args:
        content: the elements inside ``<svg>``. They are inserted into the page unescaped, and may be: they hold numbers
            and names of CSS classes of this package, and no text.
        across, up: ticks of the axes: position from 0 (left, bottom) to 100, and text.
        log: whether the vertical axis is logarithmic.
    """

    content: Markup
    across: Ticks
    up: Ticks
    log: bool

    @property
    def gutter(self) -> int:
        """The length of the longest text at the vertical axis, in characters."""
        return max(len(text) for _, text in self.up)


def draw(lines: Sequence[Line]) -> Drawing:
    """Draw ``lines`` over G steps: first what is faint in all of them, then on top of it what is strong.

    Raises:
        ValueError: there are no lines.
    """
    log = wants_log_scale(lines)
    lows, highs = zip(*(line.extent() for line in lines), strict=True)
    y = value_axis(
        min(value for line in lines for value in line.values) if log else min(lows), max(highs), log=log
    )
    x = step_axis(min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines))
    across, up = _percent(x.ticks(_MOST_TICKS)), _percent(y.ticks(_MOST_TICKS))
    grid = "".join(f"M0 {SIZE - 10 * at:g}H{SIZE}" for at, _ in up)
    parts = [f'<path class="grid" d="{grid}"/>']
    parts += [_group(line, _faint(line, x, y)) for line in lines]
    parts += [_group(line, _strong(line, x, y)) for line in lines]
    return Drawing(Markup("\n".join(parts)), across, up, log)


def _percent(ticks: Ticks) -> Ticks:
    return [(round(100 * at, 2), text) for at, text in ticks]


def _group(line: Line, content: str) -> str:
    return f'<g class="run{line.run}" style="color:var(--run{line.run})">{content}</g>'


def _faint(line: Line, x: Axis, y: Axis) -> str:
    """All values of a line that has a running mean; otherwise the band of errors, if it has one."""
    if line.smoothed:
        return f'<path class="raw" d="{_path(line.points(), x, y)}"/>'
    return "".join(f'<path class="band" d="M{"L".join(band)}Z"/>' for band in _bands(line, x, y))


def _strong(line: Line, x: Axis, y: Axis) -> str:
    """The running mean, or the values themselves, inside a wider line in the colour of the card."""
    path = _path(line.running_mean() if line.smoothed else line.points(), x, y)
    drawn = f'<path class="halo" d="{path}"/><path class="line{" dashed" * line.dashed}" d="{path}"/>'
    if line.marked:
        # A line of no length with round ends is a circle, whatever the drawing is stretched to.
        at = "".join(f"M{point}h0" for point in _points(zip(*line.points(), strict=True), x, y))
        drawn += f'<path class="marker" d="{at}"/>'
    return drawn


def _path(points: Points, x: Axis, y: Axis) -> str:
    return "M" + "L".join(_points(zip(*points, strict=True), x, y))


def _bands(line: Line, x: Axis, y: Axis) -> Iterable[list[str]]:
    """The outlines of the areas of value ± error, one for each stretch of values whose errors are known."""
    for stretch in line.stretches_with_errors():
        upper = _points([(step, value + error) for step, value, error in stretch], x, y)
        lower = _points([(step, value - error) for step, value, error in stretch], x, y)
        yield [*upper, *reversed(lower)]


def _points(pairs: Iterable[tuple[float, float]], x: Axis, y: Axis) -> list[str]:
    """``"100.5 20"`` for each pair of a step and a value; y grows downwards."""
    return [
        f"{round(SIZE * x.position(float(step)), 1):g} {round(SIZE * (1 - y.position(float(value))), 1):g}"
        for step, value in pairs
    ]

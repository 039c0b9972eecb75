"""Charts: what is drawn of a line, and where."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from fastdat.report.charts import SIZE, Drawing, draw
from fastdat.report.curves import Line


def paths(drawing: Drawing, wanted: str) -> list[list[tuple[float, float]]]:
    """The points of every path of a class, from 0 to 1 to the right and upwards."""
    tree = ElementTree.fromstring(f"<svg>{drawing.content}</svg>")
    found = []
    for path in tree.iter("path"):
        if wanted in path.attrib["class"].split():
            pairs = re.findall(r"([0-9.]+) ([0-9.]+)", path.attrib["d"])
            found.append([(float(x) / SIZE, 1 - float(y) / SIZE) for x, y in pairs])
    return found


def line(values: list[float], **changes: Any) -> Line:
    return Line(0, [10 * i for i in range(len(values))], values, **changes)


def rounded(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(round(x, 3), round(y, 3)) for x, y in points]


def test_points_are_where_the_ticks_say() -> None:
    drawing = draw([line([0.0, 8.0, 2.0, 6.0, 4.0], smooth=False)])
    (points,) = paths(drawing, "line")
    up = {text: at for at, text in drawing.up}
    across = {text: at for at, text in drawing.across}
    assert rounded(points) == [
        (round(across[str(10 * i)] / 100, 3), round(up[value] / 100, 3)) for i, value in enumerate("08264")
    ]
    assert paths(drawing, "marker") == [points]


def test_constant_is_drawn_as_a_constant() -> None:
    """A running mean that differs in its last digit stays on the line."""
    (mean,) = paths(draw([line([0.1 + 0.2, 0.3] * 40)]), "line")
    assert {y for _, y in rounded(mean)} == {0.8}


def test_many_values_are_faint_behind_their_mean() -> None:
    values = [float(i % 2) for i in range(60)]
    drawing = draw([line(values), line([0.5] * 60, dashed=True)])
    assert [len(points) for points in paths(drawing, "raw")] == [60, 60]
    assert len(paths(drawing, "dashed")) == 1
    assert [len(points) for points in paths(drawing, "halo")] == [60, 60]
    assert paths(drawing, "marker") == []


def test_strong_lines_are_above_faint_ones() -> None:
    """Neither a mean nor a short line is hidden by the values of another line."""
    content = str(draw([line([1.0, 2.0]), line([1.0, 2.0] * 30), line([1.0, 2.0] * 30)]).content)
    assert content.count('class="line"') == 3
    assert content.rindex('class="raw"') < content.index('class="halo"') < content.index('class="line"')


@pytest.mark.parametrize(
    ("count", "smooth", "marked"),
    [(1, True, True), (2, True, False), (2, False, True), (59, False, True), (60, False, False)],
)
def test_markers(count: int, smooth: bool, marked: bool) -> None:
    drawn = paths(draw([line([float(i) for i in range(count)], smooth=smooth)]), "marker")
    assert [len(points) for points in drawn] == ([count] if marked else [])


def test_band_of_errors() -> None:
    values, errors = [3.0, 2.0, 1.0, 0.5, 0.4], [1.0, 0.5, None, 0.5, 0.2]
    drawing = draw([line(values, smooth=False, errors=errors)])
    first, second = paths(drawing, "band")
    top = 4.0 + 0.05 * 4.0  # the greatest value with its error, and a margin
    assert rounded(first) == rounded([(0, 4 / top), (0.25, 2.5 / top), (0.25, 1.5 / top), (0, 2 / top)])
    assert rounded(second) == rounded([(0.75, 1 / top), (1, 0.6 / top), (1, 0.2 / top), (0.75, 0)])


def test_log_scale_survives_a_band_below_zero() -> None:
    drawing = draw([line([1.0, 100.0], smooth=False, errors=[2.0, 5.0])])
    assert drawing.log
    (band,) = paths(drawing, "band")
    assert band[-1] == (0, 0)


def test_single_value_is_a_marker_in_the_middle() -> None:
    drawing = draw([Line(3, [500], [2.0], smooth=False)])
    assert rounded(paths(drawing, "marker")[0]) == [(0.5, 0.8)]
    assert 'class="run3" style="color:var(--run3)"' in drawing.content

"""A small version of Fig. 3 for the top of the README: where each arm ends, and how it gets there.

It is drawn from the files ``fig3.json`` and ``fig3.png`` of an earlier run, without training. The points themselves
are not in the JSON, so their panels are cut out of the PNG.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastdat.data.mixture import MEANS, Mixture
from fastdat.experiments.figure_style import COLOURS, INK, style_panel
from fastdat.experiments.outcome_files import PICTURE_DPI
from fastdat.experiments.points.fig3 import ARMS, MIXTURES, Fig3Config
from fastdat.experiments.points.fig3_outputs import draw_modes, panel_grid, style_modes_axes
from fastdat.metrics.modes import NEAR
from fastdat.util import plain_json
from fastdat.util.errors import DataError, RunFolderError
from fastdat.util.files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

Statistics = Mapping[str, Any]
"""Of one measurement: ``modes`` and ``high_quality``, each with ``mean``, ``std`` and ``values`` (one per seed)."""

_DPI = 100
# The layout in pixels, from the top left corner.
_WIDTH, _HEIGHT = 1040, 552
_NAME_X, _CAPTION_Y = 22, 536  # centres of the arms' names and of the caption
_PANEL = 150  # side of a panel
_ROW_TOPS = (34, 194, 354)  # of the arms
_PANEL_LEFTS = (48, 340)  # of the mixtures
_CURVES_LEFT, _CURVES_WIDTH = 672, 340
_CURVES_TOPS, _CURVES_HEIGHT = (34, 294), 188  # of the mixtures
_SMALL, _MEDIUM, _LARGE = 8.5, 10.0, 11.5  # points


def write_landing(folder: Path) -> Path:
    """Draw ``landing.png`` from the files ``fig3.json`` and ``fig3.png`` in ``folder``.

    Returns:
        The path of the picture.

    Raises:
        DataError: one of the two files is missing or damaged, or they do not fit each other.
        RunFolderError: the picture cannot be written.
    """
    from PIL import Image

    try:
        record = plain_json.loads((folder / "fig3.json").read_bytes())
        with Image.open(folder / "fig3.png", formats=("PNG",)) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{folder} needs fig3.json and fig3.png, which `fastdat reproduce fig3` writes: {error}"
        ) from error
    try:
        figure = draw_landing(record, picture)
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{folder / 'fig3.json'} is not a record of Fig. 3: {error!r}") from error
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, facecolor="white")
    out = folder / "landing.png"
    try:
        write_atomically(out, _fewer_colours(content.getvalue()))
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror or error}") from error
    return out


def draw_landing(record: Mapping[str, Any], picture: Image) -> Figure:
    """The figure. Rows: one per arm, with its final points and scores. On the right: modes found over iterations.

    Args:
        record: the content of fig3.json.
        picture: fig3.png of the same run, RGB.

    Raises:
        DataError: the size of ``picture`` does not fit the record.
    """
    iterations, seeds = record["config"]["iterations"], len(record["seeds"])
    measurements = {arm: record["arms"][arm]["measurements"] for arm in ARMS}
    panels = {key: picture.crop(box) for key, box in final_panels(iterations, picture.size).items()}
    figure = Figure(figsize=(_WIDTH / _DPI, _HEIGHT / _DPI))
    for arm, colour, top in zip(ARMS, COLOURS[: len(ARMS)], _ROW_TOPS, strict=True):
        name = arm.replace(", ", ",\n")
        style: dict[str, Any] = {"weight": "bold", "rotation": 90, "multialignment": "center"}
        _write(figure, _NAME_X, top + _PANEL / 2, name, size=_LARGE, colour=colour, **style)
        for mixture, left in zip(MIXTURES, _PANEL_LEFTS, strict=True):
            _draw_panel(figure, left, top, panels[arm, mixture.name])
            _write_scores(figure, left + _PANEL + 10, top, measurements[arm][-1][mixture.name], colour)
    for mixture, left, top in zip(MIXTURES, _PANEL_LEFTS, _CURVES_TOPS, strict=True):
        _write(figure, left, 20, mixture.name, size=_LARGE, ha="left", weight="bold")
        columns = ", ".join(f"{sum(mixture.probabilities[i : i + 3]):.0%}" for i in (0, 3, 6))
        _write(figure, left + 112, 21, f"columns: {columns}", size=_SMALL, ha="left")
        found = {arm: [(m["iteration"], m[mixture.name]["modes"]) for m in measurements[arm]] for arm in ARMS}
        _draw_curves(figure, top, mixture, found, iterations)
    caption = (
        f"Points: seed 0 after {iterations:,} iterations. Quality: share of points inside a circle "
        f"({NEAR:g} standard deviations). Curves: mean ± standard deviation of {seeds} seed{'s' * (seeds > 1)}."
    )
    _write(figure, _PANEL_LEFTS[0], _CAPTION_Y, caption, size=_SMALL, ha="left")
    return figure


def final_panels(iterations: int, size: tuple[int, int]) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """Where fig3.png shows the last checkpoint: (arm, mixture) -> left, top, right, bottom in pixels, without frame.

    Raises:
        DataError: a run of ``iterations`` iterations has no picture of this ``size`` (width, height).
    """
    checkpoints = len(Fig3Config(iterations=iterations).checkpoints)
    is_panel = [True]  # the real points
    last = {}
    for arm in ARMS:
        is_panel += [False, *[True] * checkpoints]
        last[arm] = len(is_panel) - 1
    figure, grid = panel_grid(is_panel, len(MIXTURES))
    width, height = (int(side * PICTURE_DPI) for side in figure.get_size_inches())
    if size != (width, height):
        raise DataError(
            f"fig3.png has {size[0]} x {size[1]} pixels, but a run of {iterations:,} iterations draws "
            f"{width} x {height}: give files of one run, written by this version"
        )
    boxes = {}
    for arm, column in last.items():
        for row, mixture in enumerate(MIXTURES):
            axes = figure.add_subplot(grid[row, column])
            style_panel(axes)
            axes.apply_aspect()
            box = axes.get_position()
            left, right = math.ceil(box.x0 * width) + 1, math.floor(box.x1 * width) - 1
            top, bottom = math.ceil((1 - box.y1) * height) + 1, math.floor((1 - box.y0) * height) - 1
            boxes[arm, mixture.name] = (left, top, right, bottom)
    return boxes


def _draw_panel(figure: Figure, left: float, top: float, panel: Image) -> None:
    """Generated points, cut out of fig3.png."""
    axes = _axes(figure, left, top, _PANEL, _PANEL)
    style_panel(axes)
    extent = (*axes.get_xlim(), *axes.get_ylim())
    axes.imshow(panel, extent=extent, interpolation="antialiased")


def _draw_curves(
    figure: Figure,
    top: float,
    mixture: Mixture,
    found: Mapping[str, Sequence[tuple[int, Mapping[str, float]]]],
    iterations: int,
) -> None:
    """Modes found of one mixture: arm -> pairs of an iteration and the statistics of the modes."""
    title = f"{mixture.name}: modes found of {len(MEANS)}"
    _write(figure, _CURVES_LEFT, top - 14, title, size=_MEDIUM, ha="left")
    axes = _axes(figure, _CURVES_LEFT, top, _CURVES_WIDTH, _CURVES_HEIGHT)
    for (arm, modes), colour in zip(found.items(), COLOURS[: len(found)], strict=True):
        statistics = [(m["mean"], m["std"]) for _, m in modes]
        draw_modes(axes, [iteration for iteration, _ in modes], statistics, colour, arm)
    style_modes_axes(axes, iterations)
    style: dict[str, Any] = {"handlelength": 1.2, "columnspacing": 1.2, "borderaxespad": 0.3}
    if mixture is MIXTURES[0]:
        axes.legend(
            loc="lower left", ncols=len(found), frameon=False, fontsize=_SMALL, labelcolor=INK, **style
        )
    if mixture is MIXTURES[-1]:
        axes.set_xlabel("iterations", color=INK, fontsize=_SMALL)


def _write_scores(figure: Figure, left: float, top: float, found: Statistics, colour: str) -> None:
    """Scores beside a panel: in large print of the seed that it shows, in small print of all seeds."""
    modes, quality, seeds = found["modes"], found["high_quality"], len(found["modes"]["values"])
    for y, text in (
        (30, f"{modes['values'][0]}/{len(MEANS)} modes"),
        (50, f"quality {quality['values'][0]:.2f}"),
    ):
        _write(figure, left, top + y, text, size=_MEDIUM, colour=colour, ha="left", weight="bold")
    for y, text in (
        (85, f"mean of {seeds} seed{'s' * (seeds > 1)}:"),
        (102, f"{modes['mean']:.1f} ± {modes['std']:.1f} modes"),
        (119, f"quality {quality['mean']:.2f} ± {quality['std']:.2f}"),
    ):
        _write(figure, left, top + y, text, size=_SMALL, ha="left")


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place that is given in pixels from the top left corner."""
    return figure.add_axes((left / _WIDTH, 1 - (top + height) / _HEIGHT, width / _WIDTH, height / _HEIGHT))


def _write(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    colour: str = INK,
    ha: str = "center",
    **style: Any,
) -> None:
    """Text whose centre, or left side, is ``x``, ``y`` pixels from the top left corner."""
    figure.text(x / _WIDTH, 1 - y / _HEIGHT, text, fontsize=size, color=colour, ha=ha, va="center", **style)


def _fewer_colours(png: bytes) -> bytes:
    """The same picture with a palette of 256 colours: a third of the bytes, and no difference that is visible."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    return content.getvalue()

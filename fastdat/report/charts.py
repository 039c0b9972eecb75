"""Charts as inline SVG. Their colours are CSS variables of the page, so that they follow its light or dark theme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from fastdat.report.curves import Line, wants_log_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (5.4, 3.4)  # 389 x 245 CSS pixels: legible on a phone, three in a row on a wide screen
# matplotlib knows no CSS variables: it draws in these colours, and each is replaced by a variable afterwards.
_INK, _FAINT = "#010203", "#010204"
_RUN = "#0103{:02x}"
_MOST_RUNS = 256


@dataclass(frozen=True)
class Drawing:
    """The parts of an ``<svg>`` element.

    Args:
        view_box: the value of its attribute ``viewBox``.
        content: the elements inside it. They are inserted into the page unescaped, and may be: their only text is
            numbers and the axis label.
    """

    view_box: str
    content: Markup


def draw(key: str, y_label: str, lines: Sequence[Line]) -> Drawing:
    """Draw ``lines`` over G steps.

    Legend and title are left to the page, because the names in them come from users and must be escaped.

    Args:
        key: unique on the page; every id in the drawing starts with it.
        y_label: quantity and unit. A constant of this package, never text from a run.
        lines: of at most 256 runs; beyond that, colours repeat.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's matplotlibrc
        matplotlib.rcParams.update(
            {"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 11, "axes.unicode_minus": True}
        )
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        _style(axes, y_label)
        for number, line in enumerate(lines):
            _plot(axes, line, f"run{line.run % _MOST_RUNS}-{number}")
        if wants_log_scale(lines):
            _use_log_scale(axes)
        content = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=no_metadata)
    return _inline(content.getvalue(), key)


def _plot(axes: Axes, line: Line, name: str) -> None:
    colour, style = _RUN.format(line.run % _MOST_RUNS), (0, (4, 2)) if line.dashed else "solid"
    if line.smoothed:
        axes.plot(*line.points(), color=colour, alpha=0.25, linewidth=0.8, gid=f"{name}-raw")
        axes.plot(*line.running_mean(), color=colour, linewidth=1.8, linestyle=style, gid=f"{name}-mean")
    else:
        marker = "o" if len(line.values) < 60 else ""
        axes.plot(
            *line.points(),
            color=colour,
            linewidth=1.5,
            linestyle=style,
            gid=f"{name}-raw",
            marker=marker,
            markersize=4,
        )


def _style(axes: Axes, y_label: str) -> None:
    axes.set_xlabel("G steps", color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.margins(x=0.02)
    axes.tick_params(colors=_INK, which="both")
    axes.grid(which="major", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for name, side in axes.spines.items():
        side.set(visible=name in ("left", "bottom"), color=_FAINT)


def _use_log_scale(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0,) if high > 100 * low else (1.0, 3.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _inline(svg: str, key: str) -> Drawing:
    """Turn matplotlib's file into a part of a page that holds other drawings: unique ids, CSS variables, no styles."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="(run\d+)-(\d+-\w+)"', rf'<g class="\1" id="{key}-\1-\2"', svg)
    svg = re.sub(rf'\bid="(?!{key}-)', f'id="{key}-', svg)
    svg = svg.replace("url(#", f"url(#{key}-").replace('href="#', f'href="#{key}-')
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 var(--font)", svg)
    svg = svg.replace(_INK, "var(--ink)").replace(_FAINT, "var(--rule)")
    svg = re.sub("#0103([0-9a-f]{2})", lambda match: f"var(--run{int(match[1], 16)})", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    whole = re.search(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>(.*)</svg>', svg, re.DOTALL)
    assert whole, "matplotlib wrote no <svg> with a viewBox"
    return Drawing(whole[1], Markup(whole[2].strip()))

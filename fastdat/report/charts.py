"""Curves of several runs as inline SVG that takes its colours from the page, and so is dark where the page is."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastdat.report.curves import Line, wants_log
from fastdat.report.markup import Markup, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (5.4, 3.4)  # 389 x 245 units of the page: legible on a phone, three in a row on a wide screen
# Stand-ins, put into the drawing as colours and replaced by the page's variables.
_INK, _FAINT = "#010203", "#010204"
_RUN = "#0103{:02x}"
_MOST = 256


def draw(key: str, label: str, y_label: str, lines: Sequence[Line]) -> Markup:
    """A chart of ``lines`` over G steps.

    Nothing in it comes from a run but numbers, so that legend and titles can be text of the page.

    Args:
        key: unique in the page; begins every id in the drawing.
        label: what it shows, in words, for those who do not see it; may hold anything.
        y_label: quantity and unit.
        lines: at most 256 runs'.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever matplotlibrc the user has
        matplotlib.rcParams.update(
            {"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 11, "axes.unicode_minus": True}
        )
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        _style(axes, y_label)
        for number, line in enumerate(lines):
            _plot(axes, line, f"run{line.run % _MOST}-{number}")
        if wants_log(lines):
            _log(axes)
        content = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=nothing)
    return _inline(content.getvalue(), key, label)


def _plot(axes: Axes, line: Line, name: str) -> None:
    colour, style = _RUN.format(line.run % _MOST), (0, (4, 2)) if line.dashed else "solid"
    if line.smoothed:
        axes.plot(*line.raw(), color=colour, alpha=0.25, linewidth=0.8, gid=f"{name}-raw")
        axes.plot(*line.mean(), color=colour, linewidth=1.8, linestyle=style, gid=f"{name}-mean")
    else:
        marker = "o" if len(line.values) < 60 else ""
        axes.plot(
            *line.raw(),
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


def _log(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0,) if high > 100 * low else (1.0, 3.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _inline(svg: str, key: str, label: str) -> Markup:
    """What matplotlib wrote, as part of a page that holds others like it."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="(run\d+)-(\d+-\w+)"', rf'<g class="\1" id="{key}-\1-\2"', svg)
    svg = re.sub(rf'\bid="(?!{key}-)', f'id="{key}-', svg)
    svg = svg.replace("url(#", f"url(#{key}-").replace('href="#', f'href="#{key}-')
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 var(--font)", svg)
    svg = svg.replace(_INK, "var(--ink)").replace(_FAINT, "var(--rule)")
    svg = re.sub("#0103([0-9a-f]{2})", lambda match: f"var(--run{int(match[1], 16)})", svg)
    head = f'<svg role="img" aria-label="{text(label)}"'
    svg = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', lambda match: f"{head} {match[1]}>", svg, count=1)
    return Markup(re.sub(r"\n\s*", "\n", svg))

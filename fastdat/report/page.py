"""The whole page, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastdat.report import style
from fastdat.report.curve_section import curves
from fastdat.report.embedded import PAGE_BYTES, Grids, read_grids
from fastdat.report.markup import Markup, element, join
from fastdat.report.runs import RunRecord, read_runs
from fastdat.report.sample_section import samples
from fastdat.report.score_section import scores
from fastdat.report.score_table import series_of
from fastdat.report.tables import configuration, summary
from fastdat.util.errors import ReportError
from fastdat.util.files import write_atomically

_SECTIONS = {
    "summary": "Summary",
    "curves": "Curves",
    "samples": "Samples",
    "paper": "Scores beside the paper's",
    "configuration": "Configuration",
}


def write_report(paths: Sequence[Path], out: Path) -> int:
    """Write one HTML page about the runs in ``paths``; it needs nothing beside itself. Returns its size in bytes.

    The same runs give the same bytes, whenever and wherever.

    Raises:
        ReportError: a path is no run folder or holds damaged files, or ``out`` cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"the report is an HTML page: give a name that ends in .html, not {out}")
    runs = read_runs(paths)
    grids, divisor = read_grids(runs)
    content = page(runs, grids, divisor).encode("utf-8", "replace")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, content)
    except OSError as error:
        raise ReportError(f"cannot write {out}: {error.strerror or error}") from error
    return len(content)


def page(runs: Sequence[RunRecord], grids: Sequence[Grids], divisor: int = 1) -> Markup:
    """The page as text.

    Args:
        runs: in the order of their columns and colours.
        grids: of each run.
        divisor: by what the grids were made smaller.
    """
    title = runs[0].label if len(runs) == 1 else f"{len(runs)} runs"
    all_series = [series_of(run) for run in runs]
    notes = [_smaller(divisor)] if divisor > 1 else []
    parts = (
        summary(runs, all_series),
        curves(runs, all_series),
        join([*notes, samples(runs, grids)]),
        scores(runs, all_series),
        configuration(runs),
    )
    body = [_section(key, part) for key, part in zip(_SECTIONS, parts, strict=True)]
    names = ", ".join(run.label for run in runs)
    header = element(
        "header",
        element("h1", f"Training report: {title}"),
        element("p", names, class_="quiet") if len(runs) > 1 else Markup(""),
        element("nav", element("ul", *map(_link, _SECTIONS)), aria_label="Sections"),
    )
    made = "Written by fastdat report from the run folders; the page holds all that it shows."
    footer = element("footer", element("p", made, class_="quiet"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{style.policy()}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"fastdat report: {title}"),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(style.css(len(runs)))),
    )
    script = element("script", Markup(style.SCRIPT))
    content = element("body", header, element("main", *body), footer, script)
    return Markup(f"<!DOCTYPE html>\n{element('html', head, content, lang='en')}\n")


def _section(key: str, content: Markup) -> Markup:
    heading = element("h2", _SECTIONS[key], id=f"{key}-heading")
    return element("section", heading, content, id=key, aria_labelledby=f"{key}-heading")


def _link(key: str) -> Markup:
    return element("li", element("a", _SECTIONS[key], href=f"#{key}"))


def _smaller(divisor: int) -> Markup:
    return element(
        "p",
        f"To keep the pictures of this page below {PAGE_BYTES // 10**6} MB, grids are shown at 1/{divisor} of their "
        "width and height; the run folders have them in full.",
        class_="quiet",
    )

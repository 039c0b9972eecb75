"""The report page: read the run folders, fill in the templates, write the file.

Every text from a run is escaped by Jinja. What is inserted unescaped are constants of this package (style and script)
and the drawings of :mod:`fastdat.report.charts`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastdat.report.cells import run_names
from fastdat.report.colours import run_colours
from fastdat.report.conclusion import Conclusion, conclude
from fastdat.report.configuration_section import configuration
from fastdat.report.curve_section import curves
from fastdat.report.grids import MOST_BYTES, MOST_GRIDS, Grids, read_grids
from fastdat.report.groups import group_runs
from fastdat.report.paper_section import beside_paper
from fastdat.report.runs import RunRecord, read_runs
from fastdat.report.sample_section import samples
from fastdat.report.score_names import score_names
from fastdat.report.score_section import scores
from fastdat.report.score_table import score_series
from fastdat.report.summary_section import summary
from fastdat.report.table2 import CAVEAT
from fastdat.util.errors import ReportError
from fastdat.util.files import write_atomically


@dataclass(frozen=True)
class Written:
    """A page on the disk.

    Args:
        size: in bytes.
        headline: the page's conclusion in one sentence; another one follows where its score is not what a publication
            means by its name.
        not_shown: what is wrong with pictures that were left out, each with its run and file.
    """

    size: int
    headline: str
    not_shown: Sequence[str]


def write_report(paths: Sequence[Path], out: Path) -> Written:
    """Write one HTML page about the runs in the folders ``paths``.

    The page needs no other file and no network. The same runs give the same bytes, whenever and wherever.

    Raises:
        ReportError: a path is not a run folder or holds damaged files, or ``out`` cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"the report is an HTML page: give a name that ends in .html, not {out}")
    runs = read_runs(paths)
    grids, divisor = read_grids(runs)
    conclusion, content = page(runs, grids, divisor)
    encoded = content.encode("utf-8", "replace")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, encoded)
    except OSError as error:
        raise ReportError(f"cannot write {out}: {error.strerror or error}") from error
    not_shown = [
        f"{run.path}: {problem}"
        for run, shown in zip(runs, grids, strict=True)
        for problem in shown.unreadable
    ]
    headline, score = conclusion.headline, conclusion.score
    if score is not None and score.caveat:
        headline += f" {score.label} is {score.caveat}."
    return Written(len(encoded), headline.encode("utf-8", "replace").decode(), not_shown)


def page(runs: Sequence[RunRecord], grids: Sequence[Grids], divisor: int) -> tuple[Conclusion, str]:
    """The page's conclusion, and the page as HTML.

    Args:
        runs: in the order of their columns and colours.
        grids: of each run.
        divisor: the number by which the width and height of the grids were divided.
    """
    labels, groups = run_names(runs), group_runs(runs)
    all_series = [score_series(run) for run in runs]
    names = score_names(all_series)
    conclusion = conclude(runs, groups, all_series, names)
    script = _constant("script.js")
    html = (
        template_environment()
        .get_template("page.html")
        .render(
            title=labels[0].label if len(labels) == 1 else f"{len(labels)} runs",
            runs=labels,
            colours=run_colours(groups),
            style=_constant("style.css"),
            script=script,
            policy=_policy(script),
            conclusion=conclusion,
            samples=samples(runs, grids),
            divisor=divisor,
            most_grids=MOST_GRIDS,
            most_megabytes=MOST_BYTES // 10**6,
            scores=scores(runs, groups, all_series, names),
            curves=curves(runs, all_series, names),
            paper=beside_paper(runs, all_series, names),
            caveat=CAVEAT,
            summary=summary(runs),
            configuration=configuration(runs),
        )
    )
    return conclusion, html


def template_environment() -> Environment:
    """Jinja with the templates of this package: all text is escaped, and an unknown name is an error."""
    return Environment(
        loader=PackageLoader("fastdat.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _constant(name: str) -> Markup:
    """A file beside the templates that goes into the page as it is."""
    return Markup((files("fastdat.report") / "templates" / name).read_text(encoding="utf-8"))


def _policy(script: str) -> str:
    """The page's Content-Security-Policy: no network, pictures only from data URIs, no script but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )

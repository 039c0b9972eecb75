"""``fastdat report RUN...``: an HTML page about training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdat.commands.common import user_errors


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders that `fastdat train` has made.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one HTML page about runs: which is better, samples side by side, scores, curves, settings.

    Runs that differ only in their seed are taken together.
    """
    with user_errors():
        from fastdat.report import write_report

        written = write_report(runs, out)
        for problem in written.not_shown:
            typer.echo(f"not shown: {problem}", err=True)
        typer.echo(f"{out}: {len(runs)} run{'s' * (len(runs) > 1)}, {written.size / 1e6:.1f} MB")
        typer.echo(written.headline)

"""``fastdat --version``."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from fastdat.util.version import __version__


def _show(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastdat {__version__} (torch {version_of('torch')}, Python {platform.python_version()})")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command as a whole."""

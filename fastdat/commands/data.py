"""``fastdat data``: get, check and pack data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdat.commands.common import new_group, user_errors

app = new_group("Get and check data sets.")


@app.command("download")
def download(
    dataset: Annotated[str, typer.Argument(help="cifar10")],
    dest: Annotated[Path, typer.Argument(help="Folder to put it in.")],
) -> None:
    """Download a data set from its publisher and check it against the publisher's checksum."""
    with user_errors():
        download_into(dataset, dest)


def download_into(dataset: str, dest: Path) -> None:
    from fastdat.data import DataError
    from fastdat.data.download import fetch
    from fastdat.data.registry import ARCHIVES

    if dataset not in ARCHIVES:
        raise DataError(f"no download is known for {dataset!r}; there are: {', '.join(ARCHIVES)}")
    archive = ARCHIVES[dataset]
    if not (dest / archive.folder).is_dir():
        typer.echo(f"{archive.url} -> {dest}")
    folder = fetch(archive, dest, _percent() if sys.stderr.isatty() else None)
    typer.echo(f"{dataset} is in {folder}")


def _percent() -> Any:
    """A progress callback that rewrites one line of standard error."""

    def show(done: int, total: int | None) -> None:
        share = f" {100 * done // total:3d}%" if total else ""
        end = "\n" if done == total else ""
        print(f"\r{done / 2**20:8.1f} MiB{share}", end=end, file=sys.stderr, flush=True)

    return show

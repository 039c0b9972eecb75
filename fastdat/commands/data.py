"""``fastdat data``: download, pack and check data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdat.commands.common import ProgressLine, listed, new_group, user_errors

if TYPE_CHECKING:
    from fastdat.data import Store

app = new_group("Download, pack and check data sets.")

_NAMES = "cifar10, cifar100, stl10, tiny-imagenet, lsun-bedroom, mnist or folder"


@app.command()
def info(
    what: Annotated[str | None, typer.Argument(help="Name of a data set, or folder of a packed one.")] = None,
) -> None:
    """List the data sets, or show one: where it comes from, how the paper uses it, which commands to type."""
    with user_errors():
        from fastdat.data import DATASETS, Store
        from fastdat.data.registry import dataset_spec
        from fastdat.data.store import is_store

        if what is None:
            for spec in DATASETS.values():
                size = "any size" if spec.resolution is None else f"{spec.resolution} pixels"
                labels = f"{spec.classes} classes" if spec.classes else "no labels"
                if spec.classes is None:
                    labels = "subfolders are classes"
                how = "fastdat data download" if spec.origin else "get it yourself"
                typer.echo(f"{spec.name:14} {spec.title}, {size}, {labels}; {how}")
        elif is_store(Path(what)):
            _describe(Store(what))
        else:
            typer.echo(dataset_spec(what).page.read_text(encoding="utf-8"), nl=False)


@app.command()
def download(
    dataset: Annotated[str, typer.Argument(help="cifar10, cifar100, stl10, tiny-imagenet or mnist.")],
    dest: Annotated[Path, typer.Argument(help="Folder to put the data set in.")],
) -> None:
    """Download a data set from its publisher and check it against the publisher's checksum."""
    with user_errors():
        download_into(dataset, dest)


@app.command()
def pack(
    dataset: Annotated[str, typer.Argument(help=_NAMES)],
    source: Annotated[Path, typer.Argument(help="Folder with the publisher's files, or with images.")],
    dest: Annotated[Path, typer.Argument(help="Store to create.")],
    resolution: Annotated[int | None, typer.Option(help="Height and width; by default the paper's.")] = None,
    splits: Annotated[
        str | None, typer.Option(help="train,test or one of them; by default all that the source has.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Decoding processes; by default one per core.")
    ] = None,
) -> None:
    """Decode and resize a data set once, into a store that training memory-maps. The same command resumes."""
    with user_errors():
        from fastdat.data import pack as pack_into
        from fastdat.data.registry import available_splits

        chosen = tuple(listed(splits) or ()) if splits else available_splits(dataset, source)
        packed = pack_into(
            dataset,
            source,
            dest,
            resolution=resolution,
            splits=chosen,
            workers=workers,
            progress=_packing_progress(),
        )
        if packed.already:
            typer.echo(f"{dest} already holds these images (same names and sizes): nothing to do", err=True)
        _describe(packed.store)
        for split, name, reason in packed.skipped:
            typer.echo(f"left out of {split}: {name}: {reason}", err=True)


@app.command()
def check(store: Annotated[Path, typer.Argument(help="A packed data set.")]) -> None:
    """Read every byte of a store, compare it with its checksum, and list all damage."""
    with user_errors():
        from fastdat.data import DataError, Store

        line = ProgressLine()
        damage = list(Store(store).damage(lambda done, total: line("images checked", done, total)))
        if damage:
            raise DataError(
                f"{store} is damaged. Remove it and pack the data set again.\n" + "\n".join(damage)
            )
        typer.echo(f"{store} is undamaged")


def download_into(dataset: str, dest: Path) -> None:
    """Download ``dataset`` into ``dest`` and print what happens."""
    from fastdat.data import DataError
    from fastdat.data.download import Archive, fetch
    from fastdat.data.registry import DATASETS, available_splits

    origins = {name: spec.origin for name, spec in DATASETS.items() if spec.origin}
    if dataset not in origins:
        hint = " See: fastdat data info lsun-bedroom" if dataset == "lsun-bedroom" else ""
        raise DataError(f"no download is known for {dataset!r}; there are: {', '.join(origins)}.{hint}")
    origin = origins[dataset]
    there = dest / origin.folder
    if there.is_dir():
        available_splits(dataset, dest)  # its errors say what is missing, and what to do
        typer.echo(
            f"{dataset} was in {there} already; its files were not compared with the publisher's checksums"
        )
        return
    for url in [origin.url] if isinstance(origin, Archive) else origin.urls:
        typer.echo(f"{url} -> {dest}")
    folder = fetch(origin, dest, _download_progress() if sys.stderr.isatty() else None)
    typer.echo(f"{dataset} is in {folder}")


def _download_progress() -> Any:
    """A progress callback that rewrites one line of standard error."""

    def show(done: int, total: int | None) -> None:
        share = f" {100 * done // total:3d}%" if total else ""
        end = "\n" if done == total else ""
        print(f"\r{done / 2**20:8.1f} MiB{share}", end=end, file=sys.stderr, flush=True)

    return show


def _packing_progress() -> Any:
    """A progress callback that shows one line per split."""
    line = ProgressLine()

    def show(split: str, done: int, total: int, skipped: int) -> None:
        line(f"{split} images", done, total, f", {skipped} left out" if skipped else "")

    return show


def _describe(store: Store) -> None:
    """Print what ``store`` holds."""
    index = store.index
    typer.echo(
        f"{store.path}: {index['dataset']} at {index['resolution']} pixels, {index['channels']} channel(s)"
    )
    for split, facts in index["splits"].items():
        left = f", {len(facts['skipped'])} left out" if facts["skipped"] else ""
        typer.echo(f"  {split}: {facts['count']:,} images{left}, fingerprint {facts['fingerprint'][:16]}")

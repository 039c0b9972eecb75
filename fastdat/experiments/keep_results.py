"""Keep what experiments have written: their pages, numbers and figures, without their runs and checkpoints.

``make keep-results`` runs ``python -m fastdat.experiments.keep_results runs bench/results/reproduce``, and then makes
RESULTS.md anew. Each experiment trains in a folder of its own, so that the run folders of two never mix.

Some experiments write small files of their finished runs, of which they can make their page again without training.
They are kept too, in ``finished/NAME``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastdat.experiments.catalogue import CATALOGUE
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_atomically

_TEXTS = ("json", "md", "csv")
_PICTURES = ("png", "svg")
FINISHED = "finished"
"""The folder of the small files of finished runs: in that of an experiment, and of those that are kept."""


def keep(runs: Path, kept: Path) -> list[Path]:
    """Copy the files of all experiments of the catalogue from ``runs/NAME`` into ``kept``.

    An experiment counts once it has written its JSON. What an earlier one of the same name left in ``kept`` is removed:
    it may have had other figures. The files of finished runs only become more; those of quick runs are not kept.

    Returns:
        The copies.

    Raises:
        RunFolderError: no experiment has written anything in ``runs``, or a file cannot be read or written.
    """
    finished = [name for name in CATALOGUE if (runs / name / f"{name}.json").is_file()]
    if not finished:
        raise RunFolderError(
            f"{runs} holds no finished experiment, such as {runs / 'table4' / 'table4.json'}: "
            "run `fastdat reproduce NAME` first, or name its folder (make keep-results RUNS=...)"
        )
    copies = []
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for name in finished:
            for old in files_of(name, kept):
                old.unlink()
            copies += [_copy(file, kept) for file in files_of(name, runs / name)]
            ended = sorted((runs / name / FINISHED).glob("*.*"))
            copies += [_copy(file, kept / FINISHED / name) for file in ended]
    except OSError as error:
        raise RunFolderError(f"cannot copy from {runs} to {kept}: {error.strerror or error}") from error
    return copies


def _copy(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / file.name, file.read_bytes())
    return folder / file.name


def files_of(name: str, folder: Path) -> list[Path]:
    """The files that the outcome called ``name`` has in ``folder``: NAME.json and so on, NAME.png, NAME-samples.png.

    ``table4-images.png`` is not one of ``table4``, but of ``table4-images``.
    """
    others = [other for other in CATALOGUE if other != name and other.startswith(f"{name}-")]
    texts = [folder / f"{name}.{kind}" for kind in _TEXTS]
    pictures = [file for kind in _PICTURES for file in folder.glob(f"{name}*.{kind}")]
    return [
        file
        for file in (*texts, *sorted(pictures))
        if file.is_file()
        and (file.stem == name or file.stem.startswith(f"{name}-"))
        and not any(file.stem == other or file.stem.startswith(f"{other}-") for other in others)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m fastdat.experiments.keep_results RUNS KEPT``; returns the exit status."""
    parser = argparse.ArgumentParser(description="Copy the results of finished experiments.")
    parser.add_argument(
        "runs", type=Path, help="folder with a folder of each experiment, NAME/NAME.json and so on"
    )
    parser.add_argument("kept", type=Path, help="folder of the copies")
    given = parser.parse_args(arguments)
    try:
        copies = keep(given.runs, given.kept)
    except RunFolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.kept}: {', '.join(copy.name for copy in copies)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Find the folder that a publisher's archive unpacks to, or say how to get it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from fastdat.util.errors import DataError


def find_folder(root: Path, name: str, holds_data: Callable[[Path], bool]) -> Path | None:
    """``root`` or ``root/name``, whichever ``holds_data``; None if neither does."""
    return next((folder for folder in (root, root / name) if holds_data(folder)), None)


def missing(root: Path, wanted: str, advice: str) -> DataError:
    """The error to raise if ``root`` does not hold ``wanted``; ``advice`` says how to get it."""
    problem = f"holds no {wanted}" if root.exists() else "does not exist"
    return DataError(f"{root} {problem}. {advice}")


def download_advice(dataset: str, title: str, root: Path, folder: str) -> str:
    """The command that downloads ``dataset`` into ``root``; an incomplete ``folder`` must be removed first."""
    command = _download(dataset, root)
    if (root / folder).is_dir():  # the download would leave it as it is
        return f"{root / folder} is incomplete. Remove it and run\n    {command}"
    return f"To download {title} there, run\n    {command}"


def repair_advice(dataset: str, file: Path, name: str) -> str:
    """What to do about a damaged or missing ``file`` of ``dataset``, whose archive unpacks to a folder ``name``."""
    folder = file.parent
    if folder.name == name:
        return f"Remove {folder} and run: {_download(dataset, folder.parent)}"
    # The user's own folder, in which there may be other things too: a download would put its files one folder deeper.
    return f"Get the whole set by `fastdat data download {dataset} NEW`, and use the folder NEW, or that file of it"


def _download(dataset: str, root: Path) -> str:
    return f"fastdat data download {shlex.join([dataset, str(root)])}"

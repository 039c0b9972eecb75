"""Find the folder that a publisher's archive unpacks to, or say how to get it."""

from __future__ import annotations

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
    command = f"fastdat data download {dataset} {root}"
    if (root / folder).is_dir():  # the download would leave it as it is
        return f"{root / folder} is incomplete. Remove it and run\n    {command}"
    return f"To download {title} there, run\n    {command}"

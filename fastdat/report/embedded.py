"""Sample grids as parts of a page: which are shown, and in what size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastdat.report.runs import RunRecord
from fastdat.util.errors import ReportError

GRIDS = 24
"""Most grids of a run in a page."""
PAGE_BYTES = 30_000_000
"""Most bytes of pictures in a page; beyond it they are made smaller."""


@dataclass(frozen=True)
class Picture:
    """A PNG and its size in pixels."""

    png: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        """``data:image/png;base64,...``."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Grids:
    """The pictures of one run.

    Args:
        steps, pictures: of the grids shown, in the order of their steps.
        left_out: how many grids are not shown.
        reals: the grid of reals.
    """

    steps: Sequence[int]
    pictures: Sequence[Picture]
    left_out: int
    reals: Picture | None


def read_grids(runs: Sequence[RunRecord], limit: int = PAGE_BYTES) -> tuple[list[Grids], int]:
    """The grids of each run, and what all are divided by in width and height to keep within ``limit`` bytes.

    Raises:
        ReportError: a picture is damaged.
    """
    shown = [evenly(run.samples, GRIDS) for run in runs]
    files = [file for pictures in shown for _, file in pictures]
    files += [run.reals for run in runs if run.reals]
    pictures = {file: _open(file) for file in files}
    divisor = 1
    while sum(len(p.png) * 4 // 3 for p in pictures.values()) > limit and divisor < 16:
        divisor *= 2
        pictures = {file: _smaller(_open(file), divisor) for file in files}
    grids = [
        Grids(
            steps=[step for step, _ in chosen],
            pictures=[pictures[file] for _, file in chosen],
            left_out=len(run.samples) - len(chosen),
            reals=pictures[run.reals] if run.reals else None,
        )
        for run, chosen in zip(runs, shown, strict=True)
    ]
    return grids, divisor


def evenly(samples: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most ``most`` (2 or more) of them, the first and the last always, evenly apart."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _open(file: Path) -> Picture:
    from PIL import Image

    try:
        png = file.read_bytes()
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            width, height = image.size
            image.verify()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ReportError(f"{file} is no PNG that can be read: {error}") from error
    return Picture(png, width, height)


def _smaller(picture: Picture, divisor: int) -> Picture:
    from PIL import Image

    with Image.open(io.BytesIO(picture.png)) as image:
        size = (max(1, image.width // divisor), max(1, image.height // divisor))
        mode = "L" if image.mode == "L" else "RGB"
        content = io.BytesIO()
        image.convert(mode).resize(size, Image.Resampling.LANCZOS).save(content, "png", optimize=True)
    return Picture(content.getvalue(), *size)

"""The sample grids of the page: which of them are shown, and how large."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastdat.report.runs import RunRecord

MOST_GRIDS = 24
"""How many grids of one run a page shows at most."""
MOST_BYTES = 30_000_000
"""How many bytes all pictures of a page may take; if they take more, they are made smaller."""

MOST_PIXELS = 89_478_485
"""Of a picture; Pillow itself warns of larger ones, which take 16 bytes a pixel to decode."""

_ENLARGED_UP_TO = 300  # pixels; narrower pictures are enlarged without smoothing


@dataclass(frozen=True)
class Picture:
    """A PNG and its size in pixels."""

    png: bytes
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The picture as ``data:image/png;base64,...``."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def is_small(self) -> bool:
        """Whether the page enlarges the picture."""
        return self.width <= _ENLARGED_UP_TO


@dataclass(frozen=True)
class Grids:
    """The pictures of one run.

    Args:
        steps, pictures: the sample grids that are shown, sorted by step.
        chosen, left_out: how many grids were chosen to be shown, and how many were not.
        reals: the grid of real images; None if the run has none, or an earlier run has the same reals.
        unreadable: what is wrong with pictures that cannot be shown, each with its file.
    """

    steps: Sequence[int]
    pictures: Sequence[Picture]
    chosen: int
    left_out: int
    reals: Picture | None
    unreadable: Sequence[str] = ()


def read_grids(runs: Sequence[RunRecord], limit: int = MOST_BYTES) -> tuple[list[Grids], int]:
    """Read the grids of each run, and make all of them smaller if together they take more than ``limit`` bytes.

    A picture that cannot be read is left out, and said to be.

    Returns:
        The grids of each run, and the number by which their width and height were divided.
    """
    shown = [evenly(run.samples, MOST_GRIDS) for run in runs]
    pictures: dict[Path, Picture] = {}
    unreadable: dict[Path, str] = {}

    def is_readable(file: Path) -> bool:
        try:
            pictures[file] = _open(file)
        except UnreadablePictureError as error:
            unreadable[file] = str(error)
        return file in pictures

    for samples in shown:
        for _, file in samples:
            is_readable(file)
    reals = _different_reals(runs, is_readable)
    originals, divisor = pictures, 1
    while sum(len(p.png) * 4 // 3 for p in pictures.values()) > limit and divisor < 16:
        divisor *= 2
        pictures = {file: _smaller(whole, divisor) for file, whole in originals.items()}
    grids = [
        Grids(
            steps=[step for step, file in chosen if file in pictures],
            pictures=[pictures[file] for _, file in chosen if file in pictures],
            chosen=len(chosen),
            left_out=len(run.samples) - len(chosen),
            reals=pictures.get(of_run) if of_run else None,
            unreadable=[
                unreadable[file]
                for file in (*(file for _, file in chosen), *([of_run] if of_run else []))
                if file in unreadable
            ],
        )
        for run, chosen, of_run in zip(runs, shown, reals, strict=True)
    ]
    return grids, divisor


def _different_reals(runs: Sequence[RunRecord], is_readable: Callable[[Path], bool]) -> list[Path | None]:
    """The grid of reals of each run, unless an earlier run has shown the same data set."""
    seen: set[object] = set()
    chosen = []
    for run in runs:
        # The name of a published set says which images it has; of a folder, only its path does.
        dataset = run.config.get("dataset")
        place = str(run.config.get("data")) if dataset == "folder" else ""
        key = (str(dataset), place, str(run.config.get("resolution"))) if dataset else run.path
        chosen.append(run.reals if key not in seen else None)
        if run.reals and key not in seen and is_readable(run.reals):
            seen.add(key)
    return chosen


def evenly(samples: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """Choose at most ``most`` (2 or more) samples at even distances, always with the first and the last."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


class UnreadablePictureError(ValueError):
    """A picture of a run is damaged; the message names its file."""


def _open(file: Path) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        png = file.read_bytes()
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise UnreadablePictureError(
                    f"{file.name} has {width:,} x {height:,} pixels; a grid has {MOST_PIXELS:,} at most"
                )
            image.verify()  # the checksums of its parts
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            image.load()  # the pixels themselves
    except UnreadablePictureError:
        raise
    except Exception as error:  # Pillow reports damage by errors of a dozen types
        # The text for a file that is no picture at all has an address in memory, and no two pages would be equal.
        why = "its header is no PNG's" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadablePictureError(f"{file.name} is not a readable PNG: {why}") from error
    return Picture(png, width, height)


def _smaller(picture: Picture, divisor: int) -> Picture:
    from PIL import Image

    with Image.open(io.BytesIO(picture.png)) as image:
        size = (max(1, image.width // divisor), max(1, image.height // divisor))
        mode = "L" if image.mode == "L" else "RGB"
        content = io.BytesIO()
        image.convert(mode).resize(size, Image.Resampling.LANCZOS).save(content, "png", optimize=True)
    return Picture(content.getvalue(), *size)

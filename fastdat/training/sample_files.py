"""Samples as files: one grid, or one PNG per image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fastdat.training.png import grid_png, image_png, picture, to_uint8
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.files import write_atomically

MOST_IN_GRID = 10_000
"""Samples of one picture."""


def check_grid(count: int) -> None:
    """Refuse a picture of more than :data:`MOST_IN_GRID` samples.

    Raises:
        ConfigError: the message says what to do.
    """
    if count > MOST_IN_GRID:
        raise ConfigError(
            f"a grid shows at most {MOST_IN_GRID:,} samples, got {count:,}: write files with --folder, or take fewer"
        )


def write_grid(path: Path, batches: Iterable[Tensor]) -> None:
    """Write one PNG of all samples: images (n, C, H, W) row by row, points (n, 2) in one plane.

    Raises:
        RunFolderError: it cannot be written.
    """
    _write(path, picture(torch.cat(list(batches))))


def write_strips(path: Path, images: Tensor, columns: int) -> None:
    """Write one PNG of images (rows * columns, C, H, W).

    Raises:
        ConfigError: the samples are points.
        RunFolderError: it cannot be written.
    """
    _write(path, grid_png(_images(images), columns=columns))


def write_folder(folder: Path, batches: Iterable[Tensor]) -> None:
    """Write 000000.png, 000001.png, ... into ``folder``, which is created if it is missing.

    Raises:
        ConfigError: the samples are points.
        RunFolderError: a file cannot be written.
    """
    index = 0
    for batch in batches:
        for image in to_uint8(_images(batch)).cpu():
            _write(folder / f"{index:06d}.png", image_png(image), flush=False)
            index += 1


def _images(samples: Tensor) -> Tensor:
    if samples.ndim != 4:
        raise ConfigError("this model generates points, which are shown together in one picture: take --grid")
    return samples


def _write(path: Path, png: bytes, *, flush: bool = True) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png, flush=flush)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error

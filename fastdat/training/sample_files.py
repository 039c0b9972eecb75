"""Samples as files: one grid, or a PNG each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fastdat.training.png import grid_png, image_png, points_png, to_uint8
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.files import write_atomically


def write_grid(path: Path, batches: Iterable[Tensor]) -> None:
    """One PNG of all samples: images row by row, points in one plane.

    Raises:
        RunFolderError: it cannot be written.
    """
    samples = torch.cat(list(batches))
    _write(path, grid_png(samples) if samples.ndim == 4 else points_png(samples))


def write_strips(path: Path, images: Tensor, columns: int) -> None:
    """One PNG of images (rows * columns, C, H, W).

    Raises:
        ConfigError: they are no images.
        RunFolderError: it cannot be written.
    """
    _write(path, grid_png(_images(images), columns=columns))


def write_folder(folder: Path, batches: Iterable[Tensor]) -> None:
    """000000.png, 000001.png, ... in ``folder``, which is made where it is missing.

    Raises:
        ConfigError: they are no images.
        RunFolderError: it cannot be written.
    """
    index = 0
    for batch in batches:
        for image in to_uint8(_images(batch)).cpu():
            _write(folder / f"{index:06d}.png", image_png(image), flush=False)
            index += 1


def _images(samples: Tensor) -> Tensor:
    if samples.ndim != 4:
        raise ConfigError("this model draws points, which have a picture only all together: take --grid")
    return samples


def _write(path: Path, png: bytes, *, flush: bool = True) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, png, flush=flush)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror or error}") from error

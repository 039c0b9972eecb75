"""Samples as files: one grid, one PNG per image, or an animation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from fastdat.training.png import animation, enlarged, grid, grid_png, image_png, layout, picture, to_uint8
from fastdat.util.errors import ConfigError
from fastdat.util.files import write_output

MOST_IN_GRID = 10_000
"""Samples of one picture; of one animation in all its frames."""
MOST_PIXELS = 170_000_000
"""Of one picture, and of all frames of an animation. Pillow refuses to open larger pictures."""
ANIMATIONS = ("gif", "webp", "png")
"""Suffixes of animations; an animated PNG shows its first frame where animations are unknown."""


def check_count(count: int) -> None:
    """Refuse a picture of more than :data:`MOST_IN_GRID` samples.

    Raises:
        ConfigError: the message says what to do.
    """
    if count > MOST_IN_GRID:
        raise ConfigError(
            f"a picture shows at most {MOST_IN_GRID:,} samples, got {count:,}: write files with --folder, or take fewer"
        )


def check_pixels(
    count: int, resolution: int, scale: int, *, columns: int | None = None, frames: int = 1
) -> None:
    """Refuse a picture of more than :data:`MOST_PIXELS` pixels.

    Args:
        count: samples in the picture, or in one frame.
        resolution: height and width of a sample.
        scale: width and height of its pixels.
        columns: samples in a row; None: the grid is as square as possible.
        frames: of an animation.

    Raises:
        ConfigError: the message says what to do.
    """
    rows, columns = layout(count, columns)
    pixels = frames * (rows * (resolution + 2) + 2) * (columns * (resolution + 2) + 2) * scale**2
    if pixels > MOST_PIXELS:
        raise ConfigError(
            f"a picture may have {MOST_PIXELS:,} pixels in all, and this one would have {pixels:,}: take a smaller "
            "--scale or fewer samples"
        )


def check_animation(path: Path) -> str:
    """The kind of animation that ``path`` ends with.

    Raises:
        ConfigError: it ends with another suffix.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ANIMATIONS:
        raise ConfigError(f"an animation is a file that ends with .{', .'.join(ANIMATIONS)}; got {path}")
    return kind


def check_grid(path: Path) -> None:
    """Refuse a name for a grid that does not say what it is.

    Raises:
        ConfigError: it does not end with .png.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"a grid is a PNG, a file that ends with .png; got {path}")


def check_folder(folder: Path, count: int) -> None:
    """Refuse a folder in which samples of an earlier call would be left beside the new ones.

    Args:
        folder: for :func:`write_folder`; it may be missing.
        count: of samples that will be written.

    Raises:
        ConfigError: the message says which file is there.
    """
    older = sorted(
        path.name for path in folder.glob("*.png") if path.stem.isdecimal() and int(path.stem) >= count
    )
    if older:
        raise ConfigError(
            f"{folder} holds {older[0]}"
            + (f" and {len(older) - 1} more" if len(older) > 1 else "")
            + " of an earlier call, which would be left beside the new ones: give another folder, or remove it"
        )


def write_grid(path: Path, batches: Iterable[Tensor], scale: int = 1) -> None:
    """Write one PNG of all samples: images (n, C, H, W) row by row, points (n, 2) in one plane.

    Args:
        path: the file.
        batches: the samples.
        scale: width and height of an image's pixel; 1 for points.

    Raises:
        ConfigError: points cannot be enlarged.
        RunFolderError: the file cannot be written.
    """
    samples = torch.cat(list(batches))
    if samples.ndim != 4 and scale == 1:
        write_output(path, picture(samples))
    else:
        write_output(path, grid_png(_images(samples, "--scale is for images"), scale=scale))


def write_strips(path: Path, walks: Tensor, scale: int = 1) -> None:
    """Write one PNG of walks (rows, steps, C, H, W), one walk in each row.

    Raises:
        ConfigError: the samples are points.
        RunFolderError: it cannot be written.
    """
    images = _images(walks.flatten(0, 1), "--interpolate is for images")
    write_output(path, grid_png(images, columns=walks.shape[1], scale=scale))


def write_animation(path: Path, walks: Tensor, scale: int = 1) -> None:
    """Write walks (n, steps, C, H, W) as an animation of a grid of n images, which goes to the end and back for ever.

    Raises:
        ConfigError: the samples are points, or the suffix is none of :data:`ANIMATIONS`.
        RunFolderError: it cannot be written.
    """
    kind = check_animation(path)
    _images(walks.flatten(0, 1), "--animation is for images")
    there = [grid(walks[:, step], scale=scale) for step in range(walks.shape[1])]
    write_output(path, animation([*there, *there[-2:0:-1]], kind))


def write_folder(folder: Path, batches: Iterable[Tensor], scale: int = 1) -> None:
    """Write 000000.png, 000001.png, ... into ``folder``, which is created if it is missing.

    Raises:
        ConfigError: the samples are points.
        RunFolderError: a file cannot be written.
    """
    index = 0
    for batch in batches:
        for image in to_uint8(_images(batch, "--folder is for images")).cpu():
            write_output(folder / f"{index:06d}.png", image_png(enlarged(image, scale)), flush=False)
            index += 1


def _images(samples: Tensor, use: str) -> Tensor:
    if samples.ndim != 4:
        raise ConfigError(
            f"{use}; this model generates points, which are shown together in one picture: take --grid alone"
        )
    return samples

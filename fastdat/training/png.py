"""Image tensors and points as PNG, and walks as animations."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def picture(samples: Tensor) -> bytes:
    """A PNG of images (N, 1 or 3, H, W) in a grid, or of points (N, 2) in one plane."""
    return grid_png(samples) if samples.ndim == 4 else points_png(samples)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> uint8 in [0, 255]: ``(x + 1) * 127.5``, rounded and clamped."""
    return images.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


def grid_png(images: Tensor, gap: int = 2, columns: int | None = None, scale: int = 1) -> bytes:
    """A PNG of :func:`grid`."""
    return image_png(grid(images, gap, columns, scale))


def grid(images: Tensor, gap: int = 2, columns: int | None = None, scale: int = 1) -> Tensor:
    """Images (N, 1 or 3, H, W) in [-1, 1], row by row, with ``gap`` white pixels around each: uint8 (1 or 3, H', W').

    Args:
        images: what is shown.
        gap: pixels before scaling.
        columns: images in a row; None: the grid is as square as possible.
        scale: width and height of a pixel.
    """
    count, channels, height, width = images.shape
    rows, columns = layout(count, columns)
    sheet = torch.full(
        (channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8
    )
    for i, image in enumerate(to_uint8(images).cpu()):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return enlarged(sheet, scale)


def layout(count: int, columns: int | None = None) -> tuple[int, int]:
    """Rows and columns of a grid of ``count`` images; as square as possible if ``columns`` is not given."""
    columns = columns or math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def enlarged(image: Tensor, scale: int) -> Tensor:
    """An image (C, H, W) whose pixels are ``scale`` wide and high."""
    return image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def animation(frames: Sequence[Tensor], kind: str, milliseconds: int = 60) -> bytes:
    """Uint8 images (1 or 3, H, W), all of one shape, as an endless animation.

    Args:
        frames: at least two.
        kind: ``"gif"``, which has 256 colours; or ``"webp"`` or ``"png"``, which are exact.
        milliseconds: how long each frame is shown.
    """
    first, *others = map(_pillow, frames)
    file = io.BytesIO()
    exact = {"lossless": True} if kind == "webp" else {}
    first.save(file, kind, save_all=True, append_images=others, duration=milliseconds, loop=0, **exact)
    return file.getvalue()


def image_png(image: Tensor) -> bytes:
    """A PNG of one uint8 image (1 or 3, H, W)."""
    file = io.BytesIO()
    _pillow(image).save(file, "png")
    return file.getvalue()


def _pillow(image: Tensor) -> Image:
    from PIL import Image

    pixels = image.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def points_png(points: Tensor, reach: float = 1.8) -> bytes:
    """A PNG of points (N, 2); both axes go from ``-reach`` to ``reach``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    x, y = points.detach().float().cpu().numpy().T
    axes.scatter(x, y, s=4, alpha=0.5, linewidths=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()

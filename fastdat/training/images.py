"""Image tensors as PNG grids."""

from __future__ import annotations

import io
import math

import torch
from PIL import Image
from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] -> uint8, 0 to 255, from ``(x + 1) / 2``."""
    return images.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


def grid_png(images: Tensor, gap: int = 2) -> bytes:
    """A PNG of (N, 3, H, W) images in [-1, 1], row by row in a near-square grid, ``gap`` white pixels apart."""
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = torch.full(
        (channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8
    )
    for i, image in enumerate(to_uint8(images).cpu()):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    file = io.BytesIO()
    Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy()).save(file, "png")
    return file.getvalue()

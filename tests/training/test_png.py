"""Image tensors as PNG."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastdat.training.png import grid_png, to_uint8


def test_to_uint8_inverts_the_sampler() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(pixels.float() / 127.5 - 1), pixels)
    assert to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


@pytest.mark.parametrize(("count", "size"), [(1, (1, 1)), (5, (3, 2)), (9, (3, 3)), (64, (8, 8))])
def test_grid(count: int, size: tuple[int, int]) -> None:
    images = torch.linspace(-1, 0.9, count)[:, None, None, None].expand(count, 3, 4, 4).clone()
    images[:, 0] = -1
    sheet = np.asarray(Image.open(io.BytesIO(grid_png(images))))
    columns, rows = size
    assert sheet.shape == (2 + 6 * rows, 2 + 6 * columns, 3)
    for i in range(count):
        tile = sheet[2 + 6 * (i // columns) :, 2 + 6 * (i % columns) :][:4, :4]
        assert (tile[..., 0] == 0).all()
        assert (tile[..., 1:] == to_uint8(images[i, 1, 0, 0]).item()).all()
    assert (sheet[0] == 255).all()
    assert (sheet[:, 0] == 255).all()

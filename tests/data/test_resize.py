"""Resizing takes the middle square."""

import numpy as np

from fastdat.data.resize import RESIZE, resized


def test_resizing_takes_the_middle() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (resized(wide, 5) == 200).all()
    assert (resized(wide.transpose(1, 0, 2), 5) == 200).all()
    assert "bilinear" in RESIZE

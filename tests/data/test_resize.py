"""Resizing takes the middle square, and pads small digits."""

import numpy as np
from PIL import Image

from fastdat.data.resize import RESIZE, resized


def test_resizing_takes_the_middle() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (resized(wide, 5) == 200).all()
    assert (resized(wide.transpose(1, 0, 2), 5) == 200).all()
    assert "bilinear" in RESIZE


def test_the_square_is_scaled_by_pillow() -> None:
    """One row more lies below the square of the tall image than above it, and one column more beside the wide one."""
    noise = np.random.default_rng(0).integers(0, 256, (13, 10, 3), np.uint8)
    size, bilinear = (6, 6), Image.Resampling.BILINEAR
    for image, square in (
        (noise, noise[1:11]),
        (noise.transpose(1, 0, 2), noise.transpose(1, 0, 2)[:, 1:11]),
    ):
        square = np.ascontiguousarray(square)
        assert (resized(image, 6) == np.asarray(Image.fromarray(square).resize(size, bilinear))).all()
        grey = resized(image[:, :, 1:2], 6)
        assert (grey[:, :, 0] == np.asarray(Image.fromarray(square[:, :, 1]).resize(size, bilinear))).all()
        assert grey.shape == (6, 6, 1)
    assert resized(noise[:10], 10) is not noise
    assert (resized(noise[:10], 10) == noise[:10]).all(), "an image of the wanted size stays as it is"


def test_digits_are_padded_with_black() -> None:
    digit = np.random.default_rng(0).integers(1, 256, (28, 28, 1), np.uint8)
    padded = np.zeros((32, 32, 1), np.uint8)
    padded[2:30, 2:30] = digit
    found = resized(digit, 32)
    assert found.shape == padded.shape
    assert (found == padded).all()
    colour = np.repeat(digit, 3, 2)
    assert resized(colour, 32)[:2].all(), "colour images are scaled"
    assert resized(digit, 30)[:1].all(), "to other sizes, digits too"

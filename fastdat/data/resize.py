"""Bring images to the resolution of the networks."""

from __future__ import annotations

import numpy as np

from fastdat.data.image_files import Pixels

#: What :func:`resized` does, in words. Stores record it.
RESIZE = "middle square, Pillow bilinear (antialiased); MNIST from 28 to 32: two black pixels on each side"


def resized(image: Pixels, resolution: int) -> Pixels:
    """The middle square of an image (H, W, C), scaled to (resolution, resolution, C), bilinear and antialiased.

    A grey image of 28 x 28 pixels is padded with black to 32 instead, which loses nothing.
    """
    height, width, channels = image.shape
    if (height, width) == (resolution, resolution):
        return image
    if (height, width, channels, resolution) == (28, 28, 1, 32):
        return np.pad(image, ((2, 2), (2, 2), (0, 0)))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    from PIL import Image

    picture = Image.fromarray(square[:, :, 0] if channels == 1 else square)
    scaled = np.asarray(picture.resize((resolution, resolution), Image.Resampling.BILINEAR))
    return scaled.reshape(resolution, resolution, channels)

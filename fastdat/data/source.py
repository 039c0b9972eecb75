"""One split of a data set as its publisher lays it out: images that can be read one by one, in any process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastdat.data.errors import DataError

Pixels = NDArray[np.uint8]
"""An image (H, W, C), or many (N, C, H, W), 0 to 255."""


class Source(Protocol):
    """Images of one split, decoded when they are asked for."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels index them. Without classes all labels are 0."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Pixels, int]:
        """Image (H, W, C) in the publisher's size, and label.

        Raises:
            UnreadableImage: this one image is damaged.
        """
        ...

    def name_of(self, index: int) -> str:
        """What a person would look for to find the image."""
        ...

    def part(self, start: int, stop: int) -> Source:
        """Images ``start`` to ``stop`` by themselves: what is sent to a process that is to decode no others."""
        ...


class UnreadableImage(Exception):  # noqa: N818  # no error of the program's: it is counted, listed and gone past
    """One image that cannot be decoded."""


@dataclass(frozen=True)
class ArraySource:
    """Images that are in memory already, (N, C, H, W); ``first`` is the number of the first of them."""

    images: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    first: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Pixels, int]:
        return self.images[index].transpose(1, 2, 0), int(self.labels[index])

    def name_of(self, index: int) -> str:
        return f"image {self.first + index}"

    def part(self, start: int, stop: int) -> ArraySource:
        return ArraySource(self.images[start:stop], self.labels[start:stop], self.classes, self.first + start)


@dataclass(frozen=True)
class FileSource:
    """Image files, as RGB."""

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> tuple[Pixels, int]:
        return decode(self.root / self.paths[index]), self.labels[index]

    def name_of(self, index: int) -> str:
        return self.paths[index]

    def part(self, start: int, stop: int) -> FileSource:
        return replace(self, paths=self.paths[start:stop], labels=self.labels[start:stop])


def decode(file: Any) -> Pixels:
    """An image file, or an open one, as RGB (H, W, 3).

    Raises:
        UnreadableImage: it is none, or damaged.
    """
    from PIL import Image  # only where there is something to decode

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        # Pillow tells of damage in all these ways.
        raise UnreadableImage(str(error) or type(error).__name__) from error


def list_images(folder: Path) -> Iterator[Path]:
    """Image files under ``folder``, at any depth, in the order of their names; hidden ones left out."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            yield path


SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def resized(image: Pixels, resolution: int) -> Pixels:
    """The middle square of an image (H, W, C), bilinear and antialiased to ``resolution``; grey images of 28 pixels are
    padded to 32 with black, which loses nothing."""
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


RESIZE = "middle square, Pillow bilinear (antialiased); MNIST from 28 to 32: two black pixels on each side"


def require_folder(folder: Path, how: str) -> None:
    """Refuse a folder that is not there; ``how`` says how to get it.

    Raises:
        DataError: with both.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist. {how}")

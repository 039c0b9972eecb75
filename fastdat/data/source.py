"""One split of a data set as its publisher lays it out: images that can be read one by one, in any process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastdat.util.errors import DataError

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

    def identity(self) -> str:
        """Hex digest that tells these images from others, without decoding any, wherever they lie.

        Raises:
            DataError: an image that was there is not any more.
        """
        ...


def digest_of(parts: Iterable[str | bytes]) -> str:
    """SHA-256 of these, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part)
    return digest.hexdigest()


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

    def identity(self) -> str:
        digest = hashlib.sha256(self.labels.tobytes())
        for start in range(0, len(self), 4096):
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        return digest.hexdigest()


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

    def identity(self) -> str:
        """Of paths, labels and sizes: other images under the same names are rarely as long to the byte."""
        named = zip(self.paths, self.labels, strict=True)
        return digest_of(f"{path}\t{label}\t{self._size(path)}\n" for path, label in named)

    def _size(self, path: str) -> int:
        try:
            return (self.root / path).stat().st_size
        except OSError as error:
            raise DataError(f"{self.root / path} cannot be read: {error.strerror or error}") from error


def decode(file: Any) -> Pixels:
    """An image file, or an open one, as RGB (H, W, 3), the way up it was taken; 16-bit grey is scaled to 8.

    Raises:
        UnreadableImage: it is none, damaged, or of numbers that say nothing of black and white.
        DataError: the file cannot be read, which says nothing of the image.
    """
    from PIL import Image, ImageOps  # only where there is something to decode

    try:
        with Image.open(file) as image:
            image.load()  # all of it, or an error; asked a second time, Pillow gives what it has, the rest in black
            with suppress(Exception):  # a damaged tag is no damaged image
                ImageOps.exif_transpose(image, in_place=True)
            # Pillow gives 16-bit PGM as 32 bits, scaled to 0 to 65,535.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if image.mode in ("I", "F"):
                raise UnreadableImage(f"pixels of mode {image.mode} (32 bits) have no known range")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        # Pillow tells of damage in all these ways; an error number comes from the system.
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
        raise UnreadableImage(str(error) or type(error).__name__) from error


def list_images(folder: Path) -> list[Path]:
    """Image files under ``folder``, at any depth, in the order of their names; hidden ones left out, links followed.

    Raises:
        DataError: a folder that may not be listed.
    """
    return sorted(_images_below(folder, frozenset()))


def _images_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """The same in any order; ``above`` are device and inode of the folders that it lies in."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:  # through a link, over and over again
            return
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror or error}") from error
    for entry in visible:
        path = Path(entry.path)
        if entry.is_dir():
            yield from _images_below(path, above | {here})
        elif path.suffix.lower() in SUFFIXES and (entry.is_file() or entry.is_symlink()):
            yield path  # a link to nothing, too, which is told when it is read


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


def not_there(root: Path, wanted: str, how: str) -> DataError:
    """The error to raise where ``root`` holds nothing ``wanted``; ``how`` says how to get it."""
    where = "does not exist" if not root.exists() else f"holds no {wanted}"
    return DataError(f"{root} {where}. {how}")


def how_to_download(dataset: str, title: str, root: Path, folder: str) -> str:
    """What to type where ``root`` lacks a publisher's files: the download leaves a ``folder`` alone that is there."""
    command = f"fastdat data download {dataset} {root}"
    if (root / folder).is_dir():
        return f"{root / folder} is not complete: remove it, and run\n    {command}"
    return f"To download {title} there, run\n    {command}"

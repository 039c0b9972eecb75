"""Image files: find them in a folder and decode them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdat.util.errors import DataError

Pixels = NDArray[np.uint8]
"""One image (H, W, C) or many (N, C, H, W), 0 to 255."""

#: Suffixes of the files that count as images, in lower case.
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
}  # fmt: skip

#: The formats of these files. Pillow knows more, and would hand a PostScript file called 1.png to Ghostscript to run.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

#: Pixels of an image at most, where Pillow itself begins to warn. Decoding takes up to 16 bytes for each.
MOST_PIXELS = 89_478_485

#: Tags of a TIFF: the bits of each channel, and what 0 means (0: white).
_BITS, _PHOTOMETRIC = 258, 262


class UnreadableImage(Exception):  # noqa: N818  # not an error of the program: the image is skipped and listed
    """This one image cannot be decoded."""


def decode(file: Any) -> Pixels:
    """Decode an image file, given by path or open, to RGB (H, W, 3).

    The EXIF orientation is applied, and grey of 12 or 16 bits is scaled to 8.

    Raises:
        UnreadableImage: the file is no image or a damaged one, its pixel values have no known range, or it has more
            than :data:`MOST_PIXELS`.
        DataError: the operating system cannot read the file, which says nothing about the image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # only if there is something to decode

    try:
        # Given a path, Pillow maps some TIFFs into memory, and those of a turned camera with width and height swapped.
        with (
            open(file, "rb") if isinstance(file, (str, os.PathLike)) else nullcontext(file) as content,
            Image.open(content, formats=FORMATS) as image,
        ):
            refuse_bomb(image)
            # Decode everything now, or fail. Asked a second time, Pillow returns a damaged image's rest as black.
            image.load()
            with suppress(Exception):  # a damaged EXIF tag does not damage the image
                ImageOps.exif_transpose(image, in_place=True)
            # Pillow opens a 16-bit PGM as 32-bit values from 0 to 65,535.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
                grey = _eight_bits(image)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if image.mode in ("I", "F"):
                raise UnreadableImage(f"pixels of mode {image.mode} (32 bits) have no known range")
            return np.asarray(image.convert("RGB"))
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:  # whose text has an address in memory
        raise UnreadableImage("it is no image of a known format, or its header is damaged") from error
    except Exception as error:
        # Pillow reports damage by errors of a dozen types. Only one of the operating system carries an error number;
        # EINVAL comes from a damaged header, by which Pillow looks for something where no file can be.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
        raise UnreadableImage(str(error) or type(error).__name__) from error


def _eight_bits(image: Any) -> NDArray[np.uint8]:
    """Grey values (H, W) of an image that has more than 8 bits of them, black as 0."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(_BITS, (16,))[0]
    grey: NDArray[np.uint8] = np.clip(np.asarray(image) >> (bits - 8), 0, 255).astype(np.uint8)
    return np.invert(grey) if tags.get(_PHOTOMETRIC) == 0 else grey


def refuse_bomb(image: Any) -> None:
    """Refuse an open image, of which only the header was read, that would take too much memory.

    Raises:
        UnreadableImage: it has more than :data:`MOST_PIXELS`.
    """
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UnreadableImage(f"it has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}")


def list_images(folder: Path) -> list[Path]:
    """Image files in ``folder`` at any depth, sorted by path. Hidden files are left out, links are followed.

    Raises:
        DataError: a folder cannot be listed.
    """
    return sorted(_walk(folder, frozenset()))


def _walk(folder: Path, ancestors: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Image files in any order. ``ancestors`` holds device and inode of the folders above, to detect link cycles."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in ancestors:
            return
        with os.scandir(folder) as entries:
            visible = [(entry, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        where = error.filename or folder  # a link to itself, say
        raise DataError(f"{where} cannot be listed: {error.strerror or error}") from error
    for entry, is_folder in visible:
        path = Path(entry.path)
        if is_folder:
            yield from _walk(path, ancestors | {here})
        elif path.suffix.lower() in SUFFIXES and (entry.is_file() or not path.exists()):
            yield path  # also a link to nothing, whose reading gives the error; but no pipe, whose reading would wait

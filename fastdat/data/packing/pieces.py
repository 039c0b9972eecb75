"""Pieces: a few hundred images that one process decodes at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdat.data.image_files import Pixels, UnreadableImage
from fastdat.data.resize import resized
from fastdat.data.source import Source

#: A piece has at most this many images ...
PIECE_IMAGES = 256
#: ... and at most this many bytes once decoded, but at least one image.
PIECE_BYTES = 64 << 20


class Skipped(NamedTuple):
    """An image that cannot be decoded: its number in the source, its name and the reason."""

    number: int
    name: str
    reason: str


@dataclass(frozen=True)
class PieceTask:
    """A piece to decode.

    Args:
        source: the images of this piece alone.
        start, stop: the numbers of the first image and of the one after the last, in the whole source.
        shape: (C, H, W) of the decoded images.
    """

    source: Source
    start: int
    stop: int
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Piece:
    """A decoded piece.

    Args:
        stop: the number of the image after the last, in the whole source.
        images: (n, C, H, W).
        labels: (n,).
        skipped: the images that cannot be decoded, which are missing from ``images``.
    """

    stop: int
    images: Pixels
    labels: NDArray[np.int64]
    skipped: list[Skipped]


def images_per_piece(image_bytes: int) -> int:
    """The number of images in a piece, given the size of a decoded image."""
    return max(1, min(PIECE_IMAGES, PIECE_BYTES // image_bytes))


def piece_tasks(source: Source, start: int, shape: tuple[int, int, int]) -> Iterator[PieceTask]:
    """The pieces of ``source`` from image ``start`` on, cut off one by one as they are needed."""
    size = images_per_piece(math.prod(shape))
    for first in range(start, len(source), size):
        stop = min(first + size, len(source))
        yield PieceTask(source.part(first, stop), first, stop, shape)


def decode_piece(task: PieceTask) -> Piece:
    """Read and resize the images of ``task``; images that cannot be decoded are skipped and listed."""
    _, size, _ = task.shape
    images = np.empty((len(task.source), *task.shape), np.uint8)
    labels: list[int] = []
    skipped: list[Skipped] = []
    for i in range(len(task.source)):
        try:
            image, label = task.source.read(i)
        except UnreadableImage as error:
            skipped.append(Skipped(task.start + i, task.source.name_of(i), str(error)))
            continue
        images[len(labels)] = resized(image, size).transpose(2, 0, 1)
        labels.append(label)
    return Piece(task.stop, images[: len(labels)], np.array(labels, np.int64), skipped)

"""A set of images in memory or memory-mapped: what every reader returns and every sampler takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Images that share one checksum. It is part of the store's format.
BLOCK = 4096

Images = TypeVar("Images", Tensor, NDArray[np.uint8])


@dataclass(frozen=True)
class ImageSet:
    """Images of one split of a data set, decoded to uint8.

    Args:
        name: data set and split, for messages: ``"cifar10 train"``.
        images: (N, C, H, W) uint8, 0 to 255.
        labels: (N,) int64, indices into ``classes``.
        classes: class names.
        digest: the :attr:`fingerprint`, if it was computed from these images already (opening a store does).

    Raises:
        TypeError: the images are not uint8.
        ValueError: images or labels have the wrong shape.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8:
            raise TypeError(f"{self.name}: images must be uint8, got {self.images.dtype}")
        if self.images.dim() != 4 or len(self.images) == 0:
            raise ValueError(
                f"{self.name}: images must be (N, C, H, W), N > 0, got {tuple(self.images.shape)}"
            )
        if self.labels.shape != (len(self.images),):
            raise ValueError(f"{self.name}: {len(self.images)} images but labels {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def resolution(self) -> int:
        """Height and width of the images, which are square in every set read here."""
        return int(self.images.shape[-1])

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the images' shape and pixels. Equal images have equal fingerprints, whatever their source."""
        if self.digest is not None:
            return self.digest
        digests = [block_digest(block.cpu().numpy()) for block in blocks(self.images)]
        return combined_digest(tuple(self.images.shape[1:]), digests)


def blocks(images: Images) -> Iterator[Images]:
    """Consecutive blocks of :data:`BLOCK` images each; the last one may be shorter."""
    for start in range(0, len(images), BLOCK):
        yield images[start : start + BLOCK]


def block_digest(block: NDArray[Any]) -> str:
    """SHA-256 of the block's bytes."""
    return hashlib.sha256(np.ascontiguousarray(block).data).hexdigest()


def combined_digest(shape: tuple[int, ...], digests: list[str]) -> str:
    """The fingerprint of images of ``shape`` (C, H, W) whose blocks have these digests."""
    return hashlib.sha256("\n".join([str(tuple(shape)), *digests]).encode()).hexdigest()

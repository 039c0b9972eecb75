"""A set of images in memory: what every reader returns and every sampler takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images of one split of a data set, decoded to uint8.

    Args:
        name: data set and split, for messages: ``"cifar10 train"``.
        images: (N, C, H, W) uint8, 0 to 255.
        labels: (N,) int64, indices into ``classes``.
        classes: class names.

    Raises:
        TypeError, ValueError: a tensor of another dtype or shape.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

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
        """Height of the images, which is their width in every set read here."""
        return int(self.images.shape[-1])

"""Class-conditional SNGAN (Miyato and Koyama 2018): conditional batch norm in G, projection in D."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdat.nets import plans
from fastdat.nets.blocks import GBlock
from fastdat.nets.init import normalised_xavier
from fastdat.nets.sngan import SNGANDiscriminator, SNGANGenerator


class ConditionalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with a gain and a bias per class: x (N, C, H, W), labels (N,) -> (N, C, H, W)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, affine=False)
        self.gain = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        normalised: Tensor = super().forward(x)
        gain, shift = self.gain(labels)[:, :, None, None], self.shift(labels)[:, :, None, None]
        out: Tensor = gain * normalised + shift
        return out


class ConditionalSNGANGenerator(SNGANGenerator):
    """z (N, nz), labels (N,) int64 -> images (N, 3, resolution, resolution) in [-1, 1].

    Args:
        resolution: height and width of the images.
        classes: number of classes.
        ngf: width, as for :class:`SNGANGenerator`.
        nz: length of z.

    Raises:
        ValueError: as for :class:`SNGANGenerator`, or no classes.
    """

    def __init__(self, resolution: int, classes: int, ngf: int | None = None, nz: int = 128) -> None:
        plans.require_positive(classes=classes)
        super().__init__(resolution, ngf, nz)
        self.classes = classes
        for block in self.blocks:
            assert isinstance(block, GBlock)
            block.norm1 = ConditionalBatchNorm2d(block.norm1.num_features, classes)
            block.norm2 = ConditionalBatchNorm2d(block.norm2.num_features, classes)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        h = self.linear(z).unflatten(1, (-1, self.size, self.size))  # (N, C, size, size)
        for block in self.blocks:
            h = block(h, labels)
        return torch.tanh(self.conv(F.relu(self.norm(h))))


class ConditionalSNGANDiscriminator(SNGANDiscriminator):
    """Images (N, 3, resolution, resolution), labels (N,) int64 -> logits (N, 1).

    The logits are those of SNGAN plus the projection ``<embedding of the label, features>``.

    Args:
        resolution: height and width of the images.
        classes: number of classes.
        ndf: width, as for :class:`SNGANDiscriminator`.

    Raises:
        ValueError: as for :class:`SNGANDiscriminator`, or no classes.
    """

    def __init__(self, resolution: int, classes: int, ndf: int | None = None) -> None:
        plans.require_positive(classes=classes)
        super().__init__(resolution, ndf)
        self.classes = classes
        self.embedding = normalised_xavier(nn.Embedding(classes, self.linear.in_features))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        features = self.features(x)
        projection = (self.embedding(labels) * features).sum(1, keepdim=True)
        logits: Tensor = self.linear(features) + projection
        return logits

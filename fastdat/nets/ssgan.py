"""SSGAN (Chen et al. 2019): SNGAN whose discriminator also classifies by how much an image was rotated."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdat.nets.auxiliary import at_least_float32
from fastdat.nets.init import normalised_xavier
from fastdat.nets.shared_batch import ALONE, Shared
from fastdat.nets.sngan import SNGANDiscriminator, SNGANGenerator

ROTATIONS = 4  # by 0, 90, 180 and 270 degrees


class SSGANGenerator(SNGANGenerator):
    """SSGAN's generator, which is SNGAN's."""


class SSGANDiscriminator(SNGANDiscriminator):
    """SNGAN's discriminator with a linear head for the rotation; a :class:`fastdat.nets.HasAuxiliaryLoss`.

    Args:
        resolution: height and width of the images.
        ndf: width, as for :class:`SNGANDiscriminator`; None gives 1,054,341 parameters at 32 pixels and 10,145,541 at
            48 and 64.
    """

    auxiliary_weight_d = 1.0
    auxiliary_weight_g = 0.2
    shared = ALONE

    def __init__(self, resolution: int, ndf: int | None = None) -> None:
        super().__init__(resolution, ndf)
        self.rotation = normalised_xavier(nn.Linear(self.linear.in_features, ROTATIONS))

    def rotation_logits(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, 4) of their rotation."""
        logits: Tensor = self.rotation(self.features(x))
        return logits

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        """Cross-entropy of the rotation, a scalar. Each quarter of the images (N, 3, H, W) has its own rotation."""
        rotated, labels = rotate_quarters(x, self.shared)
        return F.cross_entropy(at_least_float32(self.rotation_logits(rotated)), labels)


def rotate_quarters(x: Tensor, shared: Shared = ALONE) -> tuple[Tensor, Tensor]:
    """Rotate each quarter of a batch by its own multiple of 90 degrees.

    Args:
        x: square images (N, C, S, S). If 4 does not divide N, the quarters differ by one image.
        shared: which part of the batch ``x`` is; the quarters are those of the whole batch.

    Returns:
        The images, image i of M in the whole batch rotated by ``i * 4 // M`` right angles, and these numbers as labels
        (N,).
    """
    count, first = x.shape[0], shared.rank * x.shape[0]
    whole = shared.size * count
    edges = [min(max(-(-k * whole // ROTATIONS) - first, 0), count) for k in range(ROTATIONS + 1)]
    quarters = [torch.rot90(x[a:b], k, (2, 3)) for k, (a, b) in enumerate(pairwise(edges))]
    labels = torch.arange(first, first + count, device=x.device) * ROTATIONS // whole
    return torch.cat(quarters), labels

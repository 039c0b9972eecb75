"""A linear generator and a linear discriminator, whose measurements follow from linear algebra."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPE = (2, 1, 3)
"""Of the images: six numbers, of unequal sides."""


class LinearG(nn.Module):
    """z (N, nz) -> images ``A z + b`` of :data:`SHAPE`."""

    def __init__(self, nz: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(nz, 6, dtype=torch.float64)

    @property
    def matrix(self) -> Tensor:
        """A (6, nz)."""
        return self.layer.weight.detach()

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z).reshape(-1, *SHAPE)


class LinearD(nn.Module):
    """Images -> ``w x + c`` (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1, dtype=torch.float64)

    @property
    def direction(self) -> Tensor:
        """w (6,)."""
        return self.layer.weight.detach()[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))

"""A discriminator as users write it: torch's modules only, pools after convolutions, torch's own spectral norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def conv(in_channels: int, out_channels: int, size: int) -> nn.Module:
    """A spectrally normalised convolution that keeps the size."""
    return spectral_norm(nn.Conv2d(in_channels, out_channels, size, padding=size // 2))


class Block(nn.Module):
    """ReLU, conv, ReLU, conv; beside it a 1x1 conv; with ``down`` an average pool over the sum of the two."""

    def __init__(self, in_channels: int, out_channels: int, *, down: bool, first: bool = False) -> None:
        super().__init__()
        layers = [conv(in_channels, out_channels, 3), nn.ReLU(), conv(out_channels, out_channels, 3)]
        self.body = nn.Sequential(*([] if first else [nn.ReLU()]), *layers)
        self.shortcut = conv(in_channels, out_channels, 1) if down else nn.Identity()
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.body(x) + self.shortcut(x))
        return out


class PlainDiscriminator(nn.Module):
    """SNGAN's blocks for 32 pixels: images (N, 3, 32, 32) -> logits (N, 1)."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            Block(3, width, down=True, first=True),
            Block(width, width, down=True),
            Block(width, width, down=False),
            Block(width, width, down=False),
            nn.ReLU(),
        )
        self.head = spectral_norm(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.sum(self.blocks(x), dim=(2, 3)))
        return out

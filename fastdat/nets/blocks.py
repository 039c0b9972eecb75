"""Residual blocks of the SNGAN family (Miyato et al. 2018), as in the baselines that the paper builds on.

No operation works in place, so every block can be differentiated twice and traced by ``torch.func``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdat.nets.init import RESIDUAL_GAIN, normalised_xavier, xavier


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def conv1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """1x1 convolution."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1)


def upsample(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W), bilinear, without aligned corners."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class GBlock(nn.Module):
    """Up-sampling block of the generator: (N, in, H, W) -> (N, out, 2H, 2W).

    Residual: BN, ReLU, bilinear x2, 3x3 conv, BN, ReLU, 3x3 conv. Shortcut: bilinear x2, 1x1 conv.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = xavier(conv3(in_channels, out_channels), RESIDUAL_GAIN)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = xavier(conv3(out_channels, out_channels), RESIDUAL_GAIN)
        self.shortcut = xavier(conv1(in_channels, out_channels))

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        # The condition is for conditional norms (fastdat.nets.conditional), which need the labels.
        h = self.conv1(upsample(F.relu(self.norm1(x, *condition))))
        h = self.conv2(F.relu(self.norm2(h, *condition)))
        # 1x1 conv and bilinear up-sampling commute (the weights sum to 1); this order needs a quarter of the work.
        out: Tensor = h + upsample(self.shortcut(x))
        return out


class FirstDBlock(nn.Module):
    """The discriminator's first block: images (N, in, H, W) -> (N, out, H/2, W/2).

    Residual: 3x3 conv, ReLU, 3x3 conv, average pool. Shortcut: average pool, then 1x1 conv. There is no first ReLU,
    since the input is an image.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = normalised_xavier(conv3(in_channels, out_channels), RESIDUAL_GAIN)
        self.conv2 = normalised_xavier(conv3(out_channels, out_channels), RESIDUAL_GAIN)
        self.shortcut = normalised_xavier(conv1(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
        out: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
        return out


class DBlock(nn.Module):
    """A later block of the discriminator: (N, in, H, W) -> (N, out, H, W), or (N, out, H/2, W/2) with ``down``.

    Residual: ReLU, 3x3 conv to ``in`` channels, ReLU, 3x3 conv to ``out``, average pool if ``down``. Shortcut: 1x1 conv
    and then average pool if channels or size change, else the identity.

    The shortcut sees ``ReLU(x)``, not ``x``: the first ReLU of the baselines works in place and so changes the input of
    the shortcut too. Every published score was measured that way, so the block does the same, but explicitly.
    """

    def __init__(self, in_channels: int, out_channels: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = normalised_xavier(conv3(in_channels, in_channels), RESIDUAL_GAIN)
        self.conv2 = normalised_xavier(conv3(in_channels, out_channels), RESIDUAL_GAIN)
        self.shortcut: nn.Module = nn.Identity()
        if down or in_channels != out_channels:
            self.shortcut = normalised_xavier(conv1(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)  # for both branches: see the class docstring
        h = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            # 1x1 conv and average pool commute; pooling first needs a quarter of the work.
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        out: Tensor = h + self.shortcut(x)
        return out


class SumPool(nn.Module):
    """ReLU, then the sum over positions: (N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sum(F.relu(x), dim=(2, 3))

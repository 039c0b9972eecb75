"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline"): residual nets without norms.

Its D is trained with the loss ``rpgan`` and the penalties R1 and R2. These nets have no classes. In the released code a
bias belongs to the activation; here it is that of the convolution before, which is the same function.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdat.nets import plans

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

SLOPE = 0.2
"""Of the leaky ReLU for negative values."""

GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""What a leaky ReLU takes from the standard deviation, given back by the initial weights."""

EXPANSION = 2
"""A block's grouped convolution has this many times its channels."""

WIDTH = 768
SIZE = 4
"""Height and width of the smallest map."""

STAGES = {32: (1, 1, 1, 1), 64: (1, 1, 1, 1, 2), 256: (1, 1, 1, 1, 2, 4, 8)}
"""By resolution, what each stage divides width and cardinality by, from the smallest map to the largest. Those of 32
pixels are the paper's for CIFAR-10."""


class R3GANGenerator(nn.Module):
    """R3GAN's generator: z (N, nz), drawn from N(0, I), -> images (N, 3, resolution, resolution).

    A learned 4x4 map a channel times a linear layer of z, then residual blocks, and before each further stage a 1x1
    convolution where the width changes and up-sampling; last a 1x1 convolution. There is no tanh: values may leave
    [-1, 1], so the data's bounds of an attack or penalty on these images must be None.

    Args:
        resolution: height and width of the images: 32, 64 or 256.
        ngf: full width in channels; None means the paper's, 768: 20,732,160 parameters at 32 pixels, 23,057,952 at 256.
        nz: length of z.
        blocks: residual blocks in each stage.
        cardinality: groups of a block's 3x3 convolution at the full width; half as many where the width is halved. None
            means an eighth of ``ngf``, which is the paper's 96.

    Raises:
        ValueError: unknown resolution, or a width that cannot be divided.
    """

    def __init__(
        self,
        resolution: int = 32,
        ngf: int | None = None,
        nz: int = 64,
        *,
        blocks: int = 2,
        cardinality: int | None = None,
    ) -> None:
        super().__init__()
        plans.require_positive(nz=nz)
        stages = _stages("ngf", resolution, ngf, blocks, cardinality, type(self).__name__)
        widths = [stage.width for stage in stages]
        self.resolution, self.nz = resolution, nz
        self.linear = _normal(nn.Linear(nz, widths[0], bias=False))
        self.basis = nn.Parameter(torch.randn(widths[0], SIZE, SIZE))
        self.stages = nn.ModuleList(stages)
        self.transitions = nn.ModuleList(_transition(*between) for between in pairwise(widths))
        self.to_rgb = _normal(nn.Conv2d(widths[-1], 3, 1, bias=False))
        self.register_buffer("taps", _taps(), persistent=False)

    taps: Tensor

    def forward(self, z: Tensor) -> Tensor:
        h = self.linear(z)[:, :, None, None] * self.basis  # (N, C, 4, 4)
        h = self.stages[0](h)
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            h = stage(upsampled(transition(h), self.taps))
        images: Tensor = self.to_rgb(h)
        return images


class R3GANDiscriminator(nn.Module):
    """R3GAN's discriminator: images (N, 3, resolution, resolution) -> raw logits (N, 1).

    A 1x1 convolution, then residual blocks, and after each stage down-sampling and a 1x1 convolution where the width
    changes; last a 4x4 convolution of each channel and a linear layer. It has no norm and treats samples independently.

    Args:
        resolution: height and width of the images: 32, 64 or 256.
        ndf: full width in channels; None means the paper's, 768: 20,683,776 parameters at 32 pixels, 23,009,568 at 256.
        blocks, cardinality: as for :class:`R3GANGenerator`, with ``ndf``.

    Raises:
        ValueError: unknown resolution, or a width that cannot be divided.
    """

    def __init__(
        self,
        resolution: int = 32,
        ndf: int | None = None,
        *,
        blocks: int = 2,
        cardinality: int | None = None,
    ) -> None:
        super().__init__()
        stages = _stages("ndf", resolution, ndf, blocks, cardinality, type(self).__name__)[::-1]
        widths = [stage.width for stage in stages]
        self.resolution = resolution
        self.from_rgb = _normal(nn.Conv2d(3, widths[0], 1, bias=False))
        self.stages = nn.ModuleList(stages)
        self.transitions = nn.ModuleList(_transition(*between) for between in pairwise(widths))
        self.basis = _normal(nn.Conv2d(widths[-1], widths[-1], SIZE, groups=widths[-1], bias=False))
        self.linear = _normal(nn.Linear(widths[-1], 1, bias=False))
        self.register_buffer("taps", _taps(), persistent=False)

    taps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        h = self.from_rgb(x)
        for stage, transition in zip(self.stages[:-1], self.transitions, strict=True):
            h = transition(downsampled(stage(h), self.taps))
        logits: Tensor = self.linear(self.basis(self.stages[-1](h)).flatten(1))
        return logits


class Block(nn.Module):
    """Residual block (N, C, H, W) -> (N, C, H, W): 1x1 conv to 2C, leaky ReLU, grouped 3x3 conv, leaky ReLU, 1x1 conv.

    It begins as the identity: the last convolution is zero. The others' standard deviation makes up for the leaky ReLU,
    and is smaller the more blocks the net has (Zhang et al. 2019, "Fixup Initialization").
    """

    def __init__(self, channels: int, groups: int, blocks_of_net: int) -> None:
        super().__init__()
        inner, gain = EXPANSION * channels, GAIN * blocks_of_net**-0.25
        self.conv1 = _normal(nn.Conv2d(channels, inner, 1), gain)
        self.conv2 = _normal(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain)
        self.conv3 = _normal(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv1(x), SLOPE)
        out: Tensor = x + self.conv3(F.leaky_relu(self.conv2(h), SLOPE))
        return out


class Stage(nn.Sequential):
    """Residual blocks of one size and width."""

    def __init__(self, width: int, blocks: int, groups: int, blocks_of_net: int) -> None:
        super().__init__(*(Block(width, groups, blocks_of_net) for _ in range(blocks)))
        self.width = width


def upsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W) by the filter [1, 3, 3, 1] / 4 in each direction, with zeros outside."""
    channels = x.shape[1]
    filters = (4 * taps).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, filters, stride=2, padding=1, groups=channels)


def downsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H/2, W/2) by the filter [1, 3, 3, 1] / 8 in each direction, with zeros outside."""
    channels = x.shape[1]
    return F.conv2d(x, taps.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def _taps() -> Tensor:
    """[1, 2, 1] convolved with [1, 1], in both directions: (4, 4), with sum 1."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(row, row) / row.sum() ** 2


def _stages(
    name: str, resolution: int, full: int | None, blocks: int, cardinality: int | None, net: str
) -> list[Stage]:
    """From the smallest map to the largest."""
    divisors = plans.plan_for(resolution, STAGES, net)
    plans.require_positive(blocks=blocks)
    # Without a cardinality the width is eight times a whole number of groups in each stage.
    parts = divisors if cardinality is not None else tuple(8 * divisor for divisor in divisors)
    groups = plans.widths(name, full, WIDTH, parts)
    widths = plans.widths(name, full, WIDTH, divisors)
    if cardinality is not None:
        groups = plans.widths("cardinality", cardinality, cardinality, divisors)
        if EXPANSION * widths[0] % cardinality:
            raise ValueError(
                f"cardinality must divide {EXPANSION} {name} = {EXPANSION * widths[0]}; got cardinality={cardinality!r}"
            )
    sizes = zip(widths, groups, strict=True)
    return [Stage(width, blocks, count, blocks * len(divisors)) for width, count in sizes]


def _transition(from_width: int, to_width: int) -> nn.Module:
    """1x1 convolution where the width changes."""
    if from_width == to_width:
        return nn.Identity()
    return _normal(nn.Conv2d(from_width, to_width, 1, bias=False))


def _normal(layer: Layer, gain: float = 1.0) -> Layer:
    """Draw the weight from N(0, gain^2 / fan in), make the bias zero, and return the layer."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer

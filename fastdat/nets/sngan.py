"""SNGAN: the residual generator and spectrally normalised discriminator of Table II's first two columns.

The widths are a table, one row a resolution: a further resolution is a further row. SSGAN and InfoMaxGAN add heads
to :meth:`SNGANDiscriminator.features`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdat.nets.blocks import DBlock, FirstDBlock, GBlock, SumPool, conv3
from fastdat.nets.init import normalised_xavier, xavier


@dataclass(frozen=True)
class GeneratorPlan:
    """Shape of a generator: ``size`` x ``size`` x ``ngf / divisors[0]`` from z, then one up block a further divisor."""

    ngf: int
    size: int
    divisors: tuple[int, ...]


@dataclass(frozen=True)
class DiscriminatorPlan:
    """Shape of a discriminator: block i has ``ndf / divisors[i]`` channels; ``down[i]``: it halves the size."""

    ndf: int
    divisors: tuple[int, ...]
    down: tuple[bool, ...]


GENERATORS = {32: GeneratorPlan(ngf=256, size=4, divisors=(1, 1, 1, 1))}
DISCRIMINATORS = {32: DiscriminatorPlan(ndf=128, divisors=(1, 1, 1, 1), down=(True, True, False, False))}


Plan = TypeVar("Plan")


def _row(table: dict[int, Plan], net: str, resolution: int) -> Plan:
    if resolution not in table:
        known = ", ".join(str(size) for size in sorted(table))
        raise ValueError(f"{net} exists at resolution {known}; got resolution={resolution!r}")
    return table[resolution]


def _widths(name: str, full: int | None, default: int, divisors: tuple[int, ...]) -> tuple[int, ...]:
    """Channels of each stage for a full width of ``full`` (the paper's when None)."""
    full = default if full is None else full
    if full < 1 or full % max(divisors):
        raise ValueError(f"{name} must be a positive multiple of {max(divisors)}; got {name}={full!r}")
    return tuple(full // divisor for divisor in divisors)


class SNGANGenerator(nn.Module):
    """SNGAN's generator: z (N, nz), drawn from N(0, I), -> images (N, 3, resolution, resolution) in [-1, 1].

    Linear, one up-sampling block a doubling, then BN, ReLU, 3x3 conv, tanh. No spectral normalisation.

    Args:
        resolution: height and width of the images; a key of :data:`GENERATORS`.
        ngf: full width in channels; None means the paper's (256 at resolution 32: 4,276,739 parameters).
        nz: length of z.

    Raises:
        ValueError: for a resolution that does not exist, or a width that cannot be divided as the plan asks.
    """

    def __init__(self, resolution: int, ngf: int | None = None, nz: int = 128) -> None:
        super().__init__()
        plan = _row(GENERATORS, "SNGANGenerator", resolution)
        if nz < 1:
            raise ValueError(f"nz, the length of z, must be positive; got nz={nz!r}")
        widths = _widths("ngf", ngf, plan.ngf, plan.divisors)
        self.resolution, self.nz, self.size = resolution, nz, plan.size
        self.linear = xavier(nn.Linear(nz, widths[0] * plan.size**2))
        self.blocks = nn.Sequential(*(GBlock(a, b) for a, b in pairwise(widths)))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = xavier(conv3(widths[-1], 3))

    def forward(self, z: Tensor) -> Tensor:
        h = self.linear(z).unflatten(1, (-1, self.size, self.size))  # (N, C, size, size)
        h = F.relu(self.norm(self.blocks(h)))
        return torch.tanh(self.conv(h))


class SNGANDiscriminator(nn.Module):
    """SNGAN's discriminator: images (N, 3, resolution, resolution) in [-1, 1] -> raw logits (N, 1).

    Residual blocks, ReLU, sum over positions, linear; every layer spectrally normalised (torch's parametrization).

    Args:
        resolution: height and width of the images; a key of :data:`DISCRIMINATORS`.
        ndf: full width in channels; None means the paper's (128 at resolution 32: 1,053,825 parameters).

    Raises:
        ValueError: for a resolution that does not exist, or a width that cannot be divided as the plan asks.
    """

    def __init__(self, resolution: int, ndf: int | None = None) -> None:
        super().__init__()
        plan = _row(DISCRIMINATORS, "SNGANDiscriminator", resolution)
        widths = _widths("ndf", ndf, plan.ndf, plan.divisors)
        self.resolution = resolution
        first = FirstDBlock(3, widths[0])
        stages = zip(pairwise(widths), plan.down[1:], strict=True)
        self.blocks = nn.Sequential(first, *(DBlock(a, b, down=down) for (a, b), down in stages))
        self.pool = SumPool()
        self.linear = normalised_xavier(nn.Linear(widths[-1], 1))

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> pooled features (N, C), what the linear heads read."""
        pooled: Tensor = self.pool(self.blocks(x))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x))
        return logits

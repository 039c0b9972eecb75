"""SNGAN (Miyato et al. 2018): the residual generator and the spectrally normalised discriminator of Table II.

SSGAN and InfoMaxGAN use this generator and add heads to this discriminator. :mod:`fastdat.nets.plans` has the shapes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdat.nets import plans
from fastdat.nets.blocks import DBlock, FirstDBlock, GBlock, SumPool, conv3
from fastdat.nets.init import normalised_xavier, xavier


class SNGANGenerator(nn.Module):
    """SNGAN's generator: z (N, nz), drawn from N(0, I), -> images (N, 3, resolution, resolution) in [-1, 1].

    Linear, one up-sampling block per doubling of the size, BN, ReLU, 3x3 conv, tanh. No spectral normalisation.

    Args:
        resolution: height and width of the images; a key of :data:`fastdat.nets.plans.GENERATORS`.
        ngf: full width in channels; None means the paper's (256 at resolution 32: 4,276,739 parameters; 512 at 48;
            1024 at 64 and 128).
        nz: length of z.

    Raises:
        ValueError: unknown resolution, or a width that the plan cannot divide.
    """

    def __init__(self, resolution: int, ngf: int | None = None, nz: int = 128) -> None:
        super().__init__()
        plan = plans.plan_for(resolution, plans.GENERATORS, type(self).__name__)
        plans.require_positive(nz=nz)
        widths = plans.widths("ngf", ngf, plan.ngf, plan.divisors)
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
        resolution: height and width of the images; a key of :data:`fastdat.nets.plans.DISCRIMINATORS`.
        ndf: full width in channels; None means the paper's (128 at resolution 32: 1,053,825 parameters; 1024 at
            48, 64 and 128).

    Raises:
        ValueError: unknown resolution, or a width that the plan cannot divide.
    """

    def __init__(self, resolution: int, ndf: int | None = None) -> None:
        super().__init__()
        plan = plans.plan_for(resolution, plans.DISCRIMINATORS, type(self).__name__)
        widths = plans.widths("ndf", ndf, plan.ndf, plan.divisors)
        self.resolution = resolution
        first = FirstDBlock(3, widths[0])
        stages = zip(pairwise(widths), plan.down[1:], strict=True)
        self.blocks = nn.Sequential(first, *(DBlock(a, b, down=down) for (a, b), down in stages))
        self.pool = SumPool()
        self.linear = normalised_xavier(nn.Linear(widths[-1], 1))

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> pooled features (N, C), the input of the linear heads."""
        pooled: Tensor = self.pool(self.blocks(x))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x))
        return logits

"""DCGAN with batch norm and four convolutions per net (Sec. IV-A).

Whatever the paper leaves open is as in Radford et al. (2016): widths (64 to 256 channels), kernels (size 4, stride 2),
LeakyReLU 0.2 in D, weights N(0, 0.02). The kernels of G's first layer and of D's last layer cover the whole smallest
map, so that four layers reach 28, 32, 48 and 64 pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdat.nets import plans

#: Sizes of G's maps, from the first to the images. D has the same sizes in reverse.
SIZES = {28: (4, 7, 14, 28), 32: (4, 8, 16, 32), 48: (6, 12, 24, 48), 64: (8, 16, 32, 64)}
_MULTIPLES = (4, 2, 1)  # channels in units of ngf or ndf, from the smallest map to the largest


def _kernel(small: int, large: int) -> int:
    """Kernel of a convolution with stride 2 and padding 1 between these sizes: 4 if the size doubles, 3 from 4 to 7."""
    return large - 2 * small + 4


class DCGANGenerator(nn.Module):
    """z (N, nz), drawn from N(0, I) -> images (N, channels, resolution, resolution) in [-1, 1].

    Args:
        resolution: a key of :data:`SIZES`.
        ngf: channels of the largest hidden map; None means 64.
        nz: length of z.
        channels: 3, or 1 for grey images.

    Raises:
        ValueError: unknown resolution, or a size below 1.
    """

    def __init__(self, resolution: int, ngf: int | None = None, nz: int = 100, channels: int = 3) -> None:
        super().__init__()
        sizes = plans.plan_for(resolution, SIZES, "DCGANGenerator")
        ngf = 64 if ngf is None else ngf
        plans.require_positive(ngf=ngf, nz=nz, channels=channels)
        self.resolution, self.nz = resolution, nz
        hidden = [ngf * multiple for multiple in _MULTIPLES]
        convs = [nn.ConvTranspose2d(nz, hidden[0], sizes[0], bias=False)]
        for (a, b), (small, large) in zip(pairwise([*hidden, channels]), pairwise(sizes), strict=True):
            # Only the last layer has a bias: batch norm, with its own bias, follows all others.
            convs.append(nn.ConvTranspose2d(a, b, _kernel(small, large), 2, 1, bias=large == resolution))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in hidden)
        self.apply(init_weights)

    def forward(self, z: Tensor) -> Tensor:
        h = z[:, :, None, None]
        *convs, last = self.convs
        for conv, norm in zip(convs, self.norms, strict=True):
            h = F.relu(norm(conv(h)))
        return torch.tanh(last(h))


class DCGANDiscriminator(nn.Module):
    """Images (N, channels, resolution, resolution) in [-1, 1] -> raw logits (N, 1).

    Batch norm couples the samples of a call, so ``dat_step`` calls it on real and fake separately and refuses
    ``microbatch``.

    Args:
        resolution: a key of :data:`SIZES`.
        ndf: channels of the largest hidden map; None means 64.
        channels: 3, or 1 for grey images.

    Raises:
        ValueError: unknown resolution, or a size below 1.
    """

    def __init__(self, resolution: int, ndf: int | None = None, channels: int = 3) -> None:
        super().__init__()
        sizes = plans.plan_for(resolution, SIZES, "DCGANDiscriminator")
        ndf = 64 if ndf is None else ndf
        plans.require_positive(ndf=ndf, channels=channels)
        self.resolution = resolution
        hidden = [ndf * multiple for multiple in reversed(_MULTIPLES)]
        convs = []
        for i, ((a, b), (large, small)) in enumerate(
            zip(pairwise([channels, *hidden]), pairwise(sizes[::-1]), strict=True)
        ):
            convs.append(nn.Conv2d(a, b, _kernel(small, large), 2, 1, bias=i == 0))
        self.convs = nn.ModuleList([*convs, nn.Conv2d(hidden[-1], 1, sizes[0])])
        # As in DCGAN, the first layer has no batch norm: D should see the statistics of the images themselves.
        self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm2d(width) for width in hidden[1:])])
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        *convs, last = self.convs
        for conv, norm in zip(convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        logits: Tensor = last(x).flatten(1)  # (N, 1, 1, 1) -> (N, 1)
        return logits


def init_weights(module: nn.Module) -> None:
    """DCGAN's initial weights: N(0, 0.02) for convolutions, N(1, 0.02) for gains of batch norm, 0 for biases."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)

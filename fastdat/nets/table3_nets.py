"""The nets of Table III: the DCGAN of the code base that the paper names for it, reduced to 32 pixels.

That code base (of Zhou and Krähenbühl 2018, reference [44], AR and RFM) has nets for 128 pixels, with six convolutions
in each. The paper scores images of 32 pixels and does not print its nets, so this reduction is ours: two stages of each
net are left out. Unlike in :mod:`fastdat.nets.dcgan`, the first layer of D has a batch norm, and no convolution has a
bias. The sigmoid that D ends in there belongs to the loss here: ``"gan"``, ``"lsgan-sigmoid"`` and ``"wgan-sigmoid"``
are those of that code base.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from fastdat.nets import plans
from fastdat.nets.dcgan import init_weights

#: The only size: the reduction is for CIFAR-10.
RESOLUTION = 32
_PLANS = {RESOLUTION: None}
#: The submodule of D whose output RFM compares: the last hidden convolution, before its batch norm.
PHI = "hidden.6"


class Table3Generator(nn.Module):
    """z (N, nz), drawn from N(0, I) -> images (N, 3, 32, 32) in [-1, 1].

    Transposed convolutions to 4, 8, 16 and 32 pixels, with ``4 ngf``, ``2 ngf``, ``ngf`` and 3 channels.

    Args:
        resolution: 32.
        ngf: channels of the largest hidden map; None means 64.
        nz: length of z.

    Raises:
        ValueError: another resolution, or a size below 1.
    """

    def __init__(self, resolution: int = RESOLUTION, ngf: int | None = None, nz: int = 128) -> None:
        super().__init__()
        plans.plan_for(resolution, _PLANS, "Table3Generator")
        ngf = 64 if ngf is None else ngf
        plans.require_positive(ngf=ngf, nz=nz)
        self.resolution, self.nz = resolution, nz
        widths = [4 * ngf, 2 * ngf, ngf]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(nz, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for a, b in pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh()
        )
        self.apply(init_weights)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class Table3Discriminator(nn.Module):
    """Images (N, 3, 32, 32) in [-1, 1] -> raw logits (N, 1).

    Convolutions to 16, 8 and 4 pixels with ``ndf``, ``2 ndf`` and ``4 ndf`` channels, each with batch norm and
    LeakyReLU 0.2, and one over the whole last map. Batch norm couples the samples of a call.

    Args:
        resolution: 32.
        ndf: channels of the largest hidden map; None means 64.

    Raises:
        ValueError: another resolution, or a size below 1.
    """

    def __init__(self, resolution: int = RESOLUTION, ndf: int | None = None) -> None:
        super().__init__()
        plans.plan_for(resolution, _PLANS, "Table3Discriminator")
        ndf = 64 if ndf is None else ndf
        plans.require_positive(ndf=ndf)
        self.resolution = resolution
        widths = [3, ndf, 2 * ndf, 4 * ndf]
        hidden: list[nn.Module] = []
        for a, b in pairwise(widths):
            hidden += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        self.hidden = nn.Sequential(*hidden)
        self.last = nn.Conv2d(widths[-1], 1, 4, bias=False)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.hidden(x)).flatten(1)  # (N, 1, 1, 1) -> (N, 1)
        return logits

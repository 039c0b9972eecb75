"""InfoMaxGAN (Lee et al. 2020): SNGAN whose discriminator also keeps its local and global features informative.

The mutual information between the features at each position of an image and the features of the whole image is bounded
from below by InfoNCE, the other images of the batch being the negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdat.nets.auxiliary import at_least_float32
from fastdat.nets.blocks import DBlock
from fastdat.nets.init import normalised_xavier
from fastdat.nets.sngan import SNGANDiscriminator, SNGANGenerator

SHARED_FEATURES = 1024  # both kinds of features are compared in a space of this dimension


class InfoMaxGANGenerator(SNGANGenerator):
    """InfoMaxGAN's generator, which is SNGAN's."""


class Projection(nn.Module):
    """Features (N, channels, ...) -> (N, SHARED_FEATURES, ...): two normalised layers and a linear shortcut.

    Args:
        channels: features in.
        positions: True for maps (N, C, H, W), each position by itself; False for vectors (N, C).
    """

    def __init__(self, channels: int, *, positions: bool) -> None:
        super().__init__()

        def layer(a: int, b: int) -> nn.Module:
            return normalised_xavier(nn.Conv2d(a, b, 1)) if positions else normalised_xavier(nn.Linear(a, b))

        self.hidden = layer(channels, channels)
        self.out = layer(channels, SHARED_FEATURES)
        self.shortcut = layer(channels, SHARED_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.out(F.relu(self.hidden(x))) + self.shortcut(x)
        return projected


class InfoMaxGANDiscriminator(SNGANDiscriminator):
    """SNGAN's discriminator with projections of its features; a :class:`fastdat.nets.HasAuxiliaryLoss`.

    Args:
        resolution, ndf: as :class:`SNGANDiscriminator` (1,615,233 parameters at 32, 14,603,521 at 48 and 64).
    """

    auxiliary_weight_d = 0.2
    auxiliary_weight_g = 0.2

    def __init__(self, resolution: int, ndf: int | None = None) -> None:
        super().__init__(resolution, ndf)
        last = self.blocks[-1]
        assert isinstance(last, DBlock)
        self.project_local = Projection(last.conv1.in_channels, positions=True)
        self.project_global = Projection(self.linear.in_features, positions=False)

    def local_and_global(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) -> features before the last block (N, C, h, w) and after it, pooled (N, C').

        The local features are rectified: the last block of the baselines begins with a ReLU in place, which reaches
        them as it reaches the block's shortcut (:class:`fastdat.nets.blocks.DBlock`).
        """
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        return F.relu(x), self.pool(last(x))

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        """InfoNCE between local and global features of a batch (N, 3, H, W), N > 1."""
        local, whole = self.local_and_global(x)
        return info_nce(self.project_local(local).flatten(2), self.project_global(whole))


def info_nce(local: Tensor, whole: Tensor) -> Tensor:
    """Mean over images i and positions p of ``-log softmax`` of ``<local_ip, whole_i>`` among itself and all
    ``<local_jq, whole_i>`` of the other images j.

    Args:
        local: (N, K, P) features of P positions.
        whole: (N, K) features of the images, N > 1.
    """
    count = local.shape[0]
    scores = at_least_float32(
        torch.einsum("jkq,ik->ijq", local, whole)
    )  # image i against every position of image j
    own = torch.eye(count, dtype=torch.bool, device=local.device)
    # The diagonal, (N, P); of `diagonal` itself inductor warns in torch 2.11.
    positive = torch.where(own[:, :, None], scores, 0).sum(1)
    negative = scores.masked_fill(own[:, :, None], -torch.inf).flatten(1).logsumexp(1, keepdim=True)  # (N, 1)
    return torch.logaddexp(positive, negative).sub(positive).mean()

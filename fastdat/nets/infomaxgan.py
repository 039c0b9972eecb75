"""InfoMaxGAN (Lee et al. 2020): SNGAN whose discriminator also maximises mutual information between its features.

The information is that between the local features at each position of an image and the global features of the image.
InfoNCE, with the other images of the batch as negatives, is a lower bound of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdat.nets.auxiliary import at_least_float32
from fastdat.nets.blocks import DBlock
from fastdat.nets.init import normalised_xavier
from fastdat.nets.shared_batch import ALONE, Shared, all_rows
from fastdat.nets.sngan import SNGANDiscriminator, SNGANGenerator

SHARED_FEATURES = 1024  # dimension of the space in which local and global features are compared


class InfoMaxGANGenerator(SNGANGenerator):
    """InfoMaxGAN's generator, which is SNGAN's."""


class Projection(nn.Module):
    """Features (N, channels, ...) -> (N, SHARED_FEATURES, ...): two normalised layers and a linear shortcut.

    Args:
        channels: number of input features.
        positions: True for maps (N, C, H, W), whose positions are projected separately; False for vectors (N, C).
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
        resolution: height and width of the images.
        ndf: width, as for :class:`SNGANDiscriminator`; None gives 1,615,233 parameters at 32 pixels and 14,603,521 at
            48 and 64.
    """

    auxiliary_weight_d = 0.2
    auxiliary_weight_g = 0.2
    shared = ALONE

    def __init__(self, resolution: int, ndf: int | None = None) -> None:
        super().__init__(resolution, ndf)
        last = self.blocks[-1]
        assert isinstance(last, DBlock)
        self.project_local = Projection(last.conv1.in_channels, positions=True)
        self.project_global = Projection(self.linear.in_features, positions=False)

    def local_and_global(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) -> local features (N, C, h, w) before the last block, global features (N, C') after it.

        The local features are rectified: the last block of the baselines begins with a ReLU that works in place and so
        changes them, as it changes the block's shortcut (:class:`fastdat.nets.blocks.DBlock`).
        """
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        return F.relu(x), self.pool(last(x))

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        """InfoNCE between local and global features of images (N, 3, H, W), N > 1; a scalar."""
        local, whole = self.local_and_global(x)
        return info_nce(self.project_local(local).flatten(2), self.project_global(whole), self.shared)


def info_nce(local: Tensor, whole: Tensor, shared: Shared = ALONE) -> Tensor:
    """InfoNCE: the mean over images i and positions p of ``-log softmax`` of the score ``<local_ip, whole_i>``.

    The softmax is over this score and the scores ``<local_jq, whole_i>`` of all positions q of the other images j.

    Args:
        local: (N, K, P), features at P positions.
        whole: (N, K), features of the images, N > 1.
        shared: which part of a batch these images are. The other images are those of the whole batch; the mean is over
            the images of this part.
    """
    everyone = all_rows(local, shared)
    # scores[i, j, q]: image i against position q of image j
    scores = at_least_float32(torch.einsum("jkq,ik->ijq", everyone, whole))
    first = shared.rank * local.shape[0]
    rows, columns = (torch.arange(len(x), device=local.device) for x in (local, everyone))
    own = rows[:, None] + first == columns
    # The diagonal, (N, P). Inductor of torch 2.11 warns about `Tensor.diagonal`, so a mask selects it.
    positive = torch.where(own[:, :, None], scores, 0).sum(1)
    negative = scores.masked_fill(own[:, :, None], -torch.inf).flatten(1).logsumexp(1, keepdim=True)  # (N, 1)
    return torch.logaddexp(positive, negative).sub(positive).mean()

"""Auxiliary losses of discriminators: the interface that SSGAN and InfoMaxGAN implement."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class HasAuxiliaryLoss(Protocol):
    """A discriminator with an auxiliary loss on a batch of images, which enters the objectives of both nets.

    D minimises its adversarial loss + ``auxiliary_weight_d * auxiliary_loss(xr)`` on clean reals. G minimises its
    adversarial loss + ``auxiliary_weight_g * auxiliary_loss(G(z))``. Training uses the auxiliary loss of every
    discriminator that has these three attributes.
    """

    auxiliary_weight_d: float
    auxiliary_weight_g: float

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        """The auxiliary loss on images (N, C, H, W), a scalar."""
        ...


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32 or wider. A softmax over many scores needs it, but autocast may have made ``x`` bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

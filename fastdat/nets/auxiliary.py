"""What a discriminator may learn beside real and fake: the interface of SSGAN's and InfoMaxGAN's further losses."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class HasAuxiliaryLoss(Protocol):
    """A discriminator with a loss of its own on a batch of images, in the objectives of both nets.

    D minimises its adversarial loss + ``auxiliary_weight_d * auxiliary_loss(xr)`` on clean reals, G minimises its
    adversarial loss + ``auxiliary_weight_g * auxiliary_loss(G(z))``. A discriminator of your own takes part in
    training by having these three.
    """

    auxiliary_weight_d: float
    auxiliary_weight_g: float

    def auxiliary_loss(self, x: Tensor) -> Tensor:
        """The loss on images (N, C, H, W), a scalar."""
        ...


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, in float32 where autocast made it narrower: a softmax over many scores needs it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

"""The baselines: the step as GAN code usually writes it, in plain eager PyTorch.

D is called in train mode, as such code does, so that every call of a spectrally normalised D does a power iteration
for each layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def hinge(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """D's hinge loss."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def sngan_loss(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
    """The SNGAN step, without attack: two calls of D."""
    real_logits = D(xr)
    fake_logits = D(xf)
    return hinge(real_logits, fake_logits)


def released_dat_loss(D: nn.Module, xr: Tensor, xf: Tensor, eps: float = 1.0) -> Tensor:
    """The DAT step as the released SNGAN code does it: six calls of D, with one attack a side.

    It computes the loss of `DATConfig.official()`. Each attack computes the gradient for the images only, which is the
    cheapest way to write it: code that calls `.backward()` there computes gradients of the weights as well.
    """
    with torch.no_grad():
        real_target = D(xr).mean()
        fake_target = D(xf).mean()
    fake_hat = attack(D, xf, real_target, eps).clamp(-1, 1)
    real_hat = attack(D, xr, fake_target, eps)
    fake_logits = D(fake_hat)
    real_logits = D(real_hat)
    return hinge(real_logits, fake_logits)


def attack(D: nn.Module, x: Tensor, target: Tensor, eps: float) -> Tensor:
    """Move x (N, C, H, W) so that the mean of D's logits comes closer to ``target``."""
    x = x.detach().requires_grad_()
    distance = torch.abs(D(x).mean() - target)
    (gradient,) = torch.autograd.grad(distance, x)
    delta = torch.clamp(-eps * gradient, -1, 1)
    return (x + delta).detach()

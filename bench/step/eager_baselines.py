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


def wgan_gp_loss(D: nn.Module, xr: Tensor, xf: Tensor, weight: float = 10.0) -> Tensor:
    """The step of WGAN-GP as public code does it: three calls of D, the last at points between real and fake."""
    real_logits = D(xr)
    fake_logits = D(xf)
    alpha = torch.rand(len(xr), 1, 1, 1, device=xr.device).expand_as(xr)
    between = (alpha * xr + (1 - alpha) * xf).detach().requires_grad_()
    logits = D(between)
    (gradient,) = torch.autograd.grad(logits, between, torch.ones_like(logits), create_graph=True)
    penalty = ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    loss: Tensor = fake_logits.mean() - real_logits.mean() + weight * penalty
    return loss


def r3gan_loss(D: nn.Module, xr: Tensor, xf: Tensor, gamma: float = 0.05) -> Tensor:
    """The step of R3GAN as its code does it: a loss of pairs, R1 and R2, each with an input gradient of its own."""
    xr, xf = xr.detach().requires_grad_(), xf.detach().requires_grad_()
    real_logits = D(xr)
    fake_logits = D(xf)
    r1 = squared_gradient(xr, real_logits)
    r2 = squared_gradient(xf, fake_logits)
    adversarial = F.softplus(-(real_logits - fake_logits)).flatten()
    return (adversarial + gamma / 2 * (r1 + r2)).mean()


def squared_gradient(x: Tensor, logits: Tensor) -> Tensor:
    """``|dD/dx|^2`` (N,) of each sample."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3))

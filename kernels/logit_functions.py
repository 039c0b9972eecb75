"""The elementwise functions of logits that losses and attacks are made of: one table.

The values are written here in PyTorch, and the slopes are derived from them. The Triton forms of value and slope are in
``attack_coefficients`` under the same codes, and a test compares them for every code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogitFunction:
    """An elementwise function ``a`` of logits, (n,) -> (n,), which the kernels know by its code."""

    code: str
    value: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor] | None = None
    """``a''``, differentiable to any order; None where it is zero everywhere."""

    def __call__(self, logits: Tensor) -> Tensor:
        return self.value(logits)


def slope(function: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """``a'(D_i)`` of any elementwise function, (n,) -> (n,), itself differentiable."""
    if function is IDENTITY:
        # torch.func refuses hooks on saved tensors (save_on_cpu), and this is the attack of the default step.
        return torch.ones_like(logits)
    out, pullback = torch.func.vjp(lambda t: function(t), logits)  # type: ignore[misc]
    gradient: Tensor = pullback(torch.ones_like(out))[0]
    return gradient


def _softplus_curvature(t: Tensor) -> Tensor:
    """Zero from 20 on, where torch's softplus is linear."""
    return torch.where(t > 20, 0.0, -torch.sigmoid(t) * torch.sigmoid(-t))


def _minus_two(t: Tensor) -> Tensor:
    return torch.full_like(t, -2.0)


IDENTITY = LogitFunction("identity", lambda t: t)
HINGE_G1 = LogitFunction("hinge.g1", lambda t: -F.relu(1 - t))
HINGE_G2 = LogitFunction("hinge.g2", lambda t: -F.relu(1 + t))
GAN_G1 = LogitFunction("gan.g1", lambda t: -F.softplus(-t), lambda t: _softplus_curvature(-t))
GAN_G2 = LogitFunction("gan.g2", lambda t: -F.softplus(t), _softplus_curvature)
LSGAN_G1 = LogitFunction("lsgan.g1", lambda t: -((t - 1) ** 2), _minus_two)
LSGAN_G2 = LogitFunction("lsgan.g2", lambda t: -(t**2), _minus_two)
WGAN_G1 = LogitFunction("wgan.g1", lambda t: t)
WGAN_G2 = LogitFunction("wgan.g2", lambda t: -t)

TABLE = {
    function.code: function
    for function in (
        *(IDENTITY, HINGE_G1, HINGE_G2, GAN_G1, GAN_G2),
        *(LSGAN_G1, LSGAN_G2, WGAN_G1, WGAN_G2),
    )
}
"""Every function, by its code."""

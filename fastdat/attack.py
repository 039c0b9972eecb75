"""The attack on D as one coefficient a sample: which function of D it moves, towards what, and how far.

For a D that treats samples independently every variant is ``delta_i = c_i * dD(x_i)/dx_i`` with
``c_i = -(eps / eps_batch) * s_i * a'(D_i)``: the sign ``s_i`` of the residual, the slope of ``a``. A D that couples
samples (batch norm in training) gets the same numbers as seeds of a true vector-Jacobian product instead.

Signs and targets are constants for autograd throughout; they enter as coefficients, never through ``abs``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor

from fastdat.config import DATConfig
from fastdat.losses import Loss


class Pair(NamedTuple):
    """One value a side."""

    real: Tensor
    fake: Tensor


def identity(logits: Tensor) -> Tensor:
    return logits


def attacked_functions(
    config: DATConfig, loss: Loss
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """``a_r`` and ``a_f``, what the attack differentiates on real and on fake."""
    match config.seed:
        case "logits":
            return identity, identity
        case "eq10":
            return loss.g1, loss.g2
        case "alg1":
            return loss.g2, loss.g1


def global_means(values: Sequence[Tensor], group: dist.ProcessGroup | None) -> list[Tensor]:
    """Mean of each vector (n,) over the samples of all ranks of ``group``, in one all-reduce; constants, scalars."""
    if group is None:
        return [v.detach().mean() for v in values]
    count = values[0].new_full((1,), values[0].numel())
    sums = torch.cat([torch.stack([v.detach().sum() for v in values]), count])
    sums = collectives.wait_tensor(collectives.all_reduce(sums, "sum", group))
    means = sums[:-1] / sums[-1]
    return [means[i] for i in range(len(values))]


def residual_signs(
    config: DATConfig,
    loss: Loss,
    clean: Pair,
    now: Pair,
    targets: Pair | None = None,
    group: dist.ProcessGroup | None = None,
) -> tuple[Pair, Pair]:
    """Sign of each residual ``a(D(x_i)) - t`` (Eqs. 9, 10), 0 where the target is met, and the targets ``t``.

    Args:
        clean: logits (n,) of the clean samples, which give the targets: the other side's global mean.
        now: logits (n,) at the point attacked; the same as ``clean`` in the first step.
        targets: those of the first step, where it is over.
        group: ranks that share the batch.

    Returns:
        signs (n,) a side, targets a scalar a side; all constants.
    """
    a_real, a_fake = attacked_functions(config, loss)
    value = Pair(a_real(now.real), a_fake(now.fake))
    wanted = [] if targets is not None else [a_real(clean.fake), a_fake(clean.real)]
    if config.reduction == "batch":
        wanted = [*wanted, value.real, value.fake]
    means = global_means(wanted, group) if wanted else []
    if targets is None:
        targets = Pair(means.pop(0), means.pop(0))
    if means:
        value = Pair(means[0].expand_as(value.real), means[1].expand_as(value.fake))
    residual = Pair(value.real.detach() - targets.real, value.fake.detach() - targets.fake)
    return Pair(torch.sign(residual.real), torch.sign(residual.fake)), targets


def slope(function: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """``a'(D_i)`` of an elementwise function, (n,) -> (n,), itself differentiable."""
    if function is identity:
        return torch.ones_like(logits)
    out, pullback = torch.func.vjp(function, logits)  # type: ignore[misc]
    gradient: Tensor = pullback(torch.ones_like(out))[0]
    return gradient


def seeds(config: DATConfig, loss: Loss, logits: Pair, sign: Pair) -> Pair:
    """``dA/dD_i = s_i * a'(D_i)``, (n,) a side."""
    a_real, a_fake = attacked_functions(config, loss)
    return Pair(sign.real * slope(a_real, logits.real), sign.fake * slope(a_fake, logits.fake))


def strength(config: DATConfig, batch: int) -> float:
    """``eps / eps_batch`` for a global batch of ``batch`` samples a side."""
    return config.eps / (config.eps_batch or batch)

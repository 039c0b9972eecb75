"""Gradient normalisation (Wu et al. 2021, "Gradient Normalization for Generative Adversarial Networks")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastdat.nets.auxiliary import at_least_float32


class GradientNormalised(nn.Module):
    """``f / (||df/dx|| + |f|)`` of a discriminator f: samples (N, ...), *args -> logits in (-1, 1), of f's shape.

    Its own gradient for x is at most 1 in length where f is piecewise linear. The norm is the 2-norm of each
    sample, ``sqrt(sum of squares + 1e-12)``, so that its derivative is finite where f is constant. f's further outputs
    are passed on. D's step and G's step both take it::

        D_gn = fastdat.nets.GradientNormalised(D)
        loss = fastdat.dat_step(D_gn, xr, xf, loss="gan")
        loss_G = fastdat.losses.generator_loss("gan", D_gn(G(z)))

    A call costs a forward and a backward pass of f, and its gradients go through both. f must treat the samples
    independently: what is taken is the gradient of the sum over the batch, which batch norm in training would make
    another. f's parameters are D's own, so D's optimizer and checkpoints stay as they are.

    Args:
        D: f, with logits (N,) or (N, 1) as its first output.

    Raises:
        ValueError: D is wrapped in DistributedDataParallel, which must be the outermost; or it has batch norms that
            take the statistics of the batch, also at a call.
    """

    def __init__(self, D: nn.Module) -> None:
        super().__init__()
        D = getattr(D, "_orig_mod", D)  # without torch.compile's wrapper: a step compiles D by itself
        if isinstance(D, DistributedDataParallel):
            raise ValueError(
                "gradient normalisation cannot be put around DistributedDataParallel, which would then average no "
                "gradients: wrap the normalised D, DistributedDataParallel(GradientNormalised(D))"
            )
        _check_independent(D)
        self.D = D

    def forward(self, x: Tensor, *args: Any) -> Any:
        if not torch.compiler.is_compiling():
            _check_independent(self.D)
        f, pullback, extras = torch.func.vjp(lambda x: _split(self.D(x, *args)), x, has_aux=True)  # type: ignore[misc]
        (gradient,) = pullback(torch.ones_like(f))
        squares = at_least_float32(gradient).square().flatten(1).sum(1)
        norm = (squares + 1e-12).sqrt().reshape(-1, *(1,) * (f.ndim - 1))
        size = f.sign().detach() * f  # |f|, whose second derivative is zero everywhere
        normalised = f / (norm + size)
        return (normalised, *extras) if extras else normalised


def _check_independent(D: nn.Module) -> None:
    """Raises ValueError where a batch norm of D takes the statistics of the batch."""
    norms = [
        name
        for name, m in D.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and (m.training or m.running_mean is None)
    ]
    if norms:
        raise ValueError(
            f"gradient normalisation needs a D that treats its samples independently, and its layers "
            f"{', '.join(map(repr, norms[:4]))} normalise over the batch: use norms of single samples, such as "
            "GroupNorm, or call eval() of these layers, which must track running statistics"
        )


def _split(out: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The logits, and the further outputs."""
    return (out[0], tuple(out[1:])) if isinstance(out, (tuple, list)) else (out, ())

"""The weight clipping of the first WGAN."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def clip_weights_(module: nn.Module, limit: float = 0.01) -> None:
    """Clip every parameter of D to ``[-limit, limit]`` in place; called after each step of D's optimizer.

    Source: Arjovsky et al. 2017, "Wasserstein GAN", reference [11] of the paper.

    Args:
        module: D.
        limit: the largest absolute value that remains.

    Raises:
        TypeError: ``module`` is no module, or ``limit`` is no number.
        ValueError: ``limit`` is not positive and finite.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"clip_weights_ takes a module, such as D; got {type(module).__name__}")
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        raise TypeError(f"limit must be a number > 0; got {limit!r}")
    if not 0 < limit < math.inf:
        raise ValueError(f"limit must be a finite number > 0; got {limit!r}")
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.clamp_(-limit, limit)

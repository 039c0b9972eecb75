"""How much of a mixture generated points cover: modes found, high-quality share, KL of the modes' shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdat.data.mixture import STD, Mixture, means_like

#: A mode is found when its share of the points is over this part of its probability.
FOUND = 1 / 5
#: A point is of high quality within this many standard deviations of its mode: 98.9 % of the real ones.
NEAR = 3.0


@dataclass(frozen=True)
class Coverage:
    """What :func:`coverage` measures; every point belongs to the mode whose mean is nearest."""

    histogram: Tensor
    """Share of the points in each mode (..., 9)."""
    modes: Tensor
    """Modes found (...), 0 to 9."""
    high_quality: Tensor
    """Share of the points within 3 standard deviations of their mode's mean (...)."""
    kl: Tensor
    """KL(histogram || the mixture's probabilities) in nats (...); 0 is perfect, ln 9 = 2.20 one mode of nine equal."""


def coverage(x: Tensor, mixture: Mixture) -> Coverage:
    """Measure points x (..., n, 2) against ``mixture``; results in float64, on the device of ``x``.

    Raises:
        ValueError: x is no batch of points, or has NaN or infinity.
    """
    if x.ndim < 2 or x.shape[-1] != 2 or x.shape[-2] == 0:
        raise ValueError(f"coverage needs points of shape (..., n, 2) with n >= 1; got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("coverage needs finite points; got NaN or infinity")
    distance, mode = torch.cdist(x, means_like(x)).min(dim=-1)  # (..., n)
    due = torch.tensor(mixture.probabilities, dtype=torch.float64, device=x.device)
    ids = torch.arange(len(due), device=x.device)
    counts = (mode.unsqueeze(-1) == ids).sum(dim=-2)  # (..., n, 9) -> (..., 9)
    histogram = counts.double() / x.shape[-2]
    return Coverage(
        histogram=histogram,
        modes=(histogram > FOUND * due).sum(dim=-1),
        high_quality=(distance <= NEAR * STD).double().mean(dim=-1),
        kl=torch.xlogy(histogram, histogram / due).sum(dim=-1),
    )

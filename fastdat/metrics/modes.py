"""How well generated points cover a mixture: modes found, high-quality share, KL divergence of the modes' shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdat.data.mixture import Mixture

#: A mode is found if its share of the points exceeds this fraction of its probability.
FOUND = 1 / 5
#: A point is of high quality if it lies within this many standard deviations of its mode, as 98.9 % of real points.
NEAR = 3.0


@dataclass(frozen=True)
class Coverage:
    """The result of :func:`coverage`. Every point belongs to the mode with the nearest mean."""

    histogram: Tensor
    """Share of the points in each mode, (..., modes)."""
    modes: Tensor
    """Number of modes found, (...)."""
    high_quality: Tensor
    """Share of the points within 3 standard deviations of their mode's mean, (...)."""
    kl: Tensor
    """KL(histogram || mode probabilities) in nats, (...). 0 is perfect; one of nine equal modes: ln 9 = 2.20."""


def coverage(x: Tensor, mixture: Mixture) -> Coverage:
    """Compare points ``x`` (..., n, 2) with ``mixture``. Results are float64, on the device of ``x``.

    Raises:
        ValueError: ``x`` has another shape, or holds NaN or infinity.
    """
    if x.ndim < 2 or x.shape[-1] != 2 or x.shape[-2] == 0:
        raise ValueError(f"coverage needs points of shape (..., n, 2) with n >= 1; got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("coverage needs finite points; got NaN or infinity")
    distance, mode = torch.cdist(x, mixture.means_like(x)).min(dim=-1)  # (..., n)
    probabilities = torch.tensor(mixture.probabilities, dtype=torch.float64, device=x.device)
    ids = torch.arange(len(probabilities), device=x.device)
    counts = (mode.unsqueeze(-1) == ids).sum(dim=-2)  # (..., n, modes) -> (..., modes)
    histogram = counts.double() / x.shape[-2]
    return Coverage(
        histogram=histogram,
        modes=(histogram > FOUND * probabilities).sum(dim=-1),
        high_quality=(distance <= NEAR * mixture.std).double().mean(dim=-1),
        kl=torch.xlogy(histogram, histogram / probabilities).sum(dim=-1),
    )

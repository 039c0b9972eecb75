"""Random numbers with one row a sample, made outside of a step's graph, in fp32 on the samples' device."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform_row(x: Tensor, generator: torch.Generator | None, width: int) -> Tensor:
    """Uniform in [0, 1), ``width`` numbers for each sample of ``x``: (n, width)."""
    return torch.rand(len(x), width, device=x.device, dtype=torch.float32, generator=generator)


def uniform_each(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform in [0, 1), one number for each sample of ``x``: (n,)."""
    return uniform_row(x, generator, 1).flatten()


def uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform in [0, 1), one number for each element of ``x``: (n, ...)."""
    return torch.rand(x.shape, device=x.device, dtype=torch.float32, generator=generator)


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal, one number for each element of ``x``: (n, ...)."""
    return torch.randn(x.shape, device=x.device, dtype=torch.float32, generator=generator)


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """``values`` (n,) with the dimensions of ``x`` (n, ...), so that each multiplies one sample; as wide as ``x``."""
    return as_wide(values, x).reshape(-1, *(1,) * (x.ndim - 1))


def as_wide(values: Tensor, x: Tensor) -> Tensor:
    """``values`` in fp32, or in fp64 if ``x`` is."""
    return values.to(torch.promote_types(x.dtype, torch.float32))

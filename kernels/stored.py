"""How the weights of ``spectral_norm`` lie in memory, and its u and v, which share one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_stored(weight: Tensor) -> Tensor:
    """``weight`` itself where its rows lie one after another, contiguous or channels_last; else a contiguous copy."""
    if weight.is_contiguous() or _is_channels_last(weight):
        return weight
    return weight.contiguous()


def _is_channels_last(weight: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return weight.ndim in formats and weight.is_contiguous(memory_format=formats[weight.ndim])


def accumulator(weight: Tensor) -> torch.dtype:
    """Of u, v, sigma and all sums."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def state_size(weights: Sequence[Tensor]) -> int:
    return sum(w.shape[0] + w[0].numel() for w in weights)


def split_state(state: Tensor, weights: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """u (rows,) and v (columns,) of each weight, views of ``state``."""
    sizes = [w.shape[0] for w in weights] + [w[0].numel() for w in weights]
    parts = state.split(sizes)
    return parts[: len(weights)], parts[len(weights) :]

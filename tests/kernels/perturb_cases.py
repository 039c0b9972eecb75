"""Arguments of ``perturb_clip`` for its tests: values, limits and memory layouts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BOUNDS = (-1.0, 1.0)
NOT_FINITE = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy, in the interpreter
LIMITS = [(0.3, BOUNDS), (None, BOUNDS), (0.3, None), (None, None)]


def samples(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, ...]:
    """x, grad (N, ...) and coefficient (N,), of a scale at which about half the elements meet a limit."""
    x = torch.rand(shape, dtype=torch.float64) * 2 - 1
    grad = torch.randn(shape, dtype=torch.float64)
    coefficient = torch.randn(shape[0], dtype=torch.float64) * 0.4
    return tuple(t.to(device, dtype) for t in (x, grad, coefficient))


def doubled(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.double() for t in tensors)


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same images (N, C, H, W) in memory in several ways."""
    return {
        "contiguous": x.contiguous(),
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "batch inside": x.movedim(0, 3).contiguous().movedim(3, 0),
        "every other": torch.stack([x, x], dim=3).flatten(2, 3)[:, :, ::2],
        "one of a pair": torch.stack([x, x], dim=1)[:, 0],
        "expanded": x[:1, :, :1].expand_as(x),
    }

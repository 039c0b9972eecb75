"""Which implementation runs: Triton on a CUDA device or under its interpreter, else the plain formulas.

``TRITON_INTERPRET=1`` runs the kernels on the CPU, for tests; ``FASTDAT_TRITON=0`` turns them off everywhere. Both are
read once, at import, as Triton itself reads its variable.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

NAMESPACE = "fastdat"
"""Of the operators, as in ``torch.ops.fastdat``."""

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
"""Kernels run on the CPU, one program after another, in NumPy."""

AVAILABLE = (
    os.environ.get("FASTDAT_TRITON", "1") != "0"
    and find_spec("triton") is not None
    and (torch.version.cuda is not None or INTERPRETED)
)
"""Triton can run here. Where it cannot, it is not even imported."""


def use_triton(x: Tensor) -> bool:
    """Whether operations on tensors like ``x`` run as Triton kernels."""
    return AVAILABLE and (x.is_cuda or INTERPRETED)

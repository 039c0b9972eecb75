"""How far a kernel may be from the truth: as far as the plain formula in the same dtype, within a factor."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_as_accurate(found: Tensor, plain: Tensor, exact: Tensor) -> None:
    """The largest error of ``found`` against ``exact`` (float64) is at most twice that of ``plain``, and one ulp."""
    assert found.dtype == plain.dtype
    assert found.shape == plain.shape == exact.shape
    exact = exact.to(found.device)
    scale = exact.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    ulp = torch.finfo(found.dtype).eps * scale
    error, allowed = (found.double() - exact).abs().max(), (plain.double() - exact).abs().max()
    assert error <= 2 * allowed + ulp, (
        f"error {error:.3g}, the plain formula's {allowed:.3g}, an ulp {ulp:.3g}"
    )

"""Each operation as its plain PyTorch formula."""

from __future__ import annotations

import torch
from torch import Tensor


def perturb_clip(
    x: Tensor, grad: Tensor, coefficient: Tensor, delta_clip: float | None, bounds: tuple[float, float] | None
) -> Tensor:
    """``clip(x + clamp(c_i * g, -delta_clip, delta_clip), low, high)``: one attack step on every sample.

    Differentiable to any order in ``x``, ``grad`` and ``coefficient``; a clamp passes gradient where its argument
    lies inside or on the limits.

    Args:
        x: samples (N, ...).
        grad: gradient of the attacked function, shape of ``x``.
        coefficient: signed strength of each sample (N,), ``-(eps / eps_batch) * s_i * a'(D_i)``.
        delta_clip: largest change of one element, or None.
        bounds: range of the result, or None.

    Returns:
        x_hat, shape and dtype of ``x``; computed in the wider dtype of the three.
    """
    delta = coefficient.reshape(-1, *(1,) * (x.ndim - 1)) * grad
    if delta_clip is not None:
        delta = torch.clamp(delta, -delta_clip, delta_clip)
    x_hat = x + delta
    if bounds is not None:
        x_hat = torch.clamp(x_hat, *bounds)
    return x_hat.to(x.dtype)

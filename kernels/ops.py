"""The operations as callers use them: as Triton kernels where those run, else as plain formulas.

Arguments, results and errors are those of the same name in ``formulas``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastdat.kernels import formulas
from fastdat.kernels.dispatch import AVAILABLE, use_triton

if AVAILABLE:
    from fastdat.kernels import attack_coefficients as of_attack
    from fastdat.kernels import perturb_clip as of_perturb
    from fastdat.kernels import spectral_norm as of_spectral


def perturb_clip(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    delta_clip: float | None,
    bounds: tuple[float, float] | None,
    *,
    clip_from: int = 0,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``clip(x + clamp(c_i * g, -delta_clip, delta_clip), low, high)``; see ``formulas.perturb_clip``.

    The kernel compiles anew for each value of ``delta_clip`` and ``bounds``.
    """
    if not use_triton(x):
        return formulas.perturb_clip(
            x, grad, coefficient, delta_clip, bounds, clip_from=clip_from, out_dtype=out_dtype
        )
    low, high = (None, None) if bounds is None else bounds
    found: Tensor = of_perturb.perturb_clip(x, grad, coefficient, delta_clip, low, high, clip_from, out_dtype)
    return found


def perturb_clip_stats(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    delta_clip: float | None,
    bounds: tuple[float, float] | None,
    *,
    clip_from: int = 0,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """``perturb_clip`` and what it did to each sample (N, 2); see ``formulas.perturb_clip_stats``."""
    if not use_triton(x):
        return formulas.perturb_clip_stats(
            x, grad, coefficient, delta_clip, bounds, clip_from=clip_from, out_dtype=out_dtype
        )
    low, high = (None, None) if bounds is None else bounds
    x_hat, stats = of_perturb.perturb_clip_stats(
        x, grad, coefficient, delta_clip, low, high, clip_from, out_dtype
    )
    return x_hat, stats


def attack_coefficients(
    clean: Tensor,
    now: Tensor,
    targets: Tensor | None,
    attacked_real: str,
    attacked_fake: str,
    reduction: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``c_i = -scale * s_i * a'(now_i)``, the signs ``s`` and the targets; see ``formulas.attack_coefficients``."""
    implementation = of_attack.attack_coefficients if use_triton(now) else formulas.attack_coefficients
    coefficient, sign, target = implementation(
        clean, now, targets, attacked_real, attacked_fake, reduction, scale
    )
    return coefficient, sign, target


def spectral_norm(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    iterations: int,
    eps: float,
    u_first: bool,
    out_dtype: torch.dtype,
) -> tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    """``W / sigma`` of all weights at once; see ``formulas.spectral_norm``."""
    function = of_spectral.spectral_norm if weights and use_triton(weights[0]) else formulas.spectral_norm
    found: tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...], Tensor]
    found = function(weights, us, vs, iterations, eps, u_first, out_dtype)
    return found

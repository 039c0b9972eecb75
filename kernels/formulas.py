"""Each operation as its plain PyTorch formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdat.kernels.logit_functions import TABLE, LogitFunction, slope

# --- one attack step on the samples -------------------------------------------------------------------------------


class Limits(NamedTuple):
    """What an attack step may do to a sample."""

    delta_clip: float | None = None
    """Largest change of one element, or None."""
    bounds: tuple[float, float] | None = None
    """Range of the result, (low, high), or None."""
    clip_from: int = 0
    """Samples before this index keep what lies out of ``bounds``: the reals of a batch [real; fake], say."""


def check_perturb_clip(x: Tensor, grad: Tensor, coefficient: Tensor, limits: Limits) -> None:
    """Raises: ValueError, where the arguments of ``perturb_clip`` do not fit together."""
    clip_from = limits.clip_from
    if x.ndim < 1 or x.numel() == 0:
        raise ValueError(
            f"x must hold at least one sample (N, ...), got shape {tuple(x.shape)}: skip empty batches"
        )
    if grad.shape != x.shape:
        raise ValueError(
            f"grad must have the shape of x, {tuple(x.shape)}, got {tuple(grad.shape)}: pass d(attacked)/dx"
        )
    if coefficient.shape != x.shape[:1]:
        raise ValueError(
            f"coefficient must be one number a sample, shape ({x.shape[0]},), got {tuple(coefficient.shape)}: "
            "expand a scalar with .expand(N)"
        )
    for name, tensor in (("x", x), ("grad", grad), ("coefficient", coefficient)):
        if not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be of a floating-point dtype, got {tensor.dtype}: convert it with .float()"
            )
        if tensor.device != x.device:
            raise ValueError(
                f"{name} is on {tensor.device}, x on {x.device}: move them to one device with .to(x.device)"
            )
    if not 0 <= clip_from <= x.shape[0]:
        raise ValueError(
            f"clip_from must be a number of samples, 0 to {x.shape[0]}, got {clip_from}: "
            "it is the index of the first sample that is clipped"
        )


def arithmetic_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any tensor is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def perturb_clip(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    limits: Limits,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``clip(x + clamp(c_i * g, -delta_clip, delta_clip), low, high)``: one attack step on every sample.

    Differentiable to any order in ``x``, ``grad`` and ``coefficient``; a clamp passes gradient where its argument
    lies inside or on the limits, and passes NaN on.

    Args:
        x: samples (N, ...).
        grad: gradient of the attacked function, shape of ``x``.
        coefficient: signed strength of each sample (N,), ``-(eps / eps_batch) * s_i * a'(D_i)``.
        limits: of the change and of the result.
        out_dtype: dtype of the result, that of ``x`` by default.

    Returns:
        x_hat, shape of ``x``; computed in float32, or in float64 where any argument is.

    Raises:
        ValueError: an empty batch, or shapes, dtypes or devices that do not fit together.
    """
    _, _, x_hat = _perturb(x, grad, coefficient, limits)
    return x_hat.to(out_dtype or x.dtype)


def perturb_clip_stats(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    limits: Limits,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """``perturb_clip`` and what it did to each sample.

    Returns:
        x_hat, as ``perturb_clip``; stats (N, 2) in the dtype of the arithmetic, constants for autograd: the sum of
        squares of ``x_hat - x`` (x_hat before it is rounded to its dtype), and the number of elements that a limit
        changed.
    """
    scaled, moved, x_hat = _perturb(x, grad, coefficient, limits)
    delta_clip, bounds, clip_from = limits
    limited = torch.zeros_like(scaled, dtype=torch.bool)
    if delta_clip is not None:
        limited |= scaled.abs() > delta_clip
    if bounds is not None:
        limited[clip_from:] |= ((moved < bounds[0]) | (moved > bounds[1]))[clip_from:]
    squares = (x_hat - x.to(x_hat.dtype)).detach().square()
    n = x.shape[0]
    stats = torch.stack([squares.reshape(n, -1).sum(1), limited.reshape(n, -1).sum(1)], dim=1)
    return x_hat.to(out_dtype or x.dtype), stats


def _perturb(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    limits: Limits,
) -> tuple[Tensor, Tensor, Tensor]:
    """``c_i * g``, ``x + clamp(c_i * g)`` and x_hat, all (N, ...), in the dtype of the arithmetic."""
    check_perturb_clip(x, grad, coefficient, limits)
    delta_clip, bounds, clip_from = limits
    dtype = arithmetic_dtype(x, grad, coefficient)
    scaled = coefficient.to(dtype).reshape(-1, *(1,) * (x.ndim - 1)) * grad
    delta = scaled if delta_clip is None else torch.clamp(scaled, -delta_clip, delta_clip)
    moved = x + delta
    if bounds is None:
        return scaled, moved, moved
    if clip_from == 0:
        return scaled, moved, torch.clamp(moved, *bounds)
    return scaled, moved, torch.cat([moved[:clip_from], torch.clamp(moved[clip_from:], *bounds)])


# --- the coefficients of the attack -------------------------------------------------------------------------------

REDUCTIONS = ("batch", "sample")

Attacked = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""``a_r`` and ``a_f``, the elementwise functions of the logits that an attack differentiates."""
Means = Callable[[Sequence[Tensor]], list[Tensor]]
"""The mean of each of several tensors over its last dimension."""


def local_means(values: Sequence[Tensor]) -> list[Tensor]:
    """Means over the samples that are here; where a batch is spread over ranks a caller passes its own."""
    return [value.mean(-1) for value in values]


def check_attack_coefficients(clean: Tensor, now: Tensor, targets: Tensor | None, reduction: str) -> None:
    """Raises: ValueError, where the arguments of ``attack_coefficients`` do not fit together."""
    if now.ndim not in (2, 3) or now.shape[-2] != 2 or now.numel() == 0:
        raise ValueError(
            f"now must be logits (2, n), reals in row 0 and fakes in row 1, n > 0, got {tuple(now.shape)}: "
            "stack the two sides"
        )
    if clean.shape != now.shape:
        raise ValueError(f"clean must have the shape of now, {tuple(now.shape)}, got {tuple(clean.shape)}")
    if targets is not None and targets.shape != now.shape[:-1]:
        raise ValueError(
            f"targets must be (t_r, t_f), shape {tuple(now.shape[:-1])}, got {tuple(targets.shape)}: "
            "pass those of the first attack step"
        )
    for name, tensor in (("clean", clean), ("now", now), ("targets", targets)):
        if tensor is not None and (
            tensor.dtype != now.dtype or tensor.dtype not in (torch.float32, torch.float64)
        ):
            raise ValueError(
                f"logits and targets must all be float32 or all float64, got {name} of {tensor.dtype}: "
                "convert them with .float()"
            )
        if tensor is not None and tensor.device != now.device:
            raise ValueError(f"{name} is on {tensor.device}, now on {now.device}: move them to one device")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def attack_coefficients(
    clean: Tensor,
    now: Tensor,
    targets: Tensor | None,
    attacked: Attacked,
    reduction: str,
    scale: float,
    means: Means = local_means,
) -> tuple[Tensor, Tensor, Tensor]:
    """``c_i = -scale * s_i * a'(now_i)``, ``s = sign(a(now) - t)``: the attack as one coefficient a sample.

    The targets are the other side's clean means: ``t_r = mean a_r(clean fake)``, ``t_f = mean a_f(clean real)``
    (Eqs. 9, 10). Signs and targets are constants for autograd; the coefficient is differentiable in ``now``, through
    ``a'``.

    Args:
        clean: logits (2, n) of the clean samples, reals in row 0 and fakes in row 1; or (B, 2, n), B of these.
        now: logits at the point attacked, shape of ``clean``.
        targets: ``(t_r, t_f)`` of the first attack step, (2,) or (B, 2); None in the first step itself.
        attacked: ``a_r`` and ``a_f``, elementwise.
        reduction: "batch", the sign of ``mean_i a(now_i) - t`` for all; "sample", a sign a sample.
        scale: ``eps / eps_batch``.
        means: function that takes the means of several vectors over the whole batch; it is called at most once a call.

    Returns:
        coefficient and sign, shape of ``now``, and the targets, as above. A residual of NaN has the sign NaN, where
        ``torch.sign`` would say 0 and so hide it.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.
    """
    check_attack_coefficients(clean, now, targets, reduction)
    with torch.no_grad():
        sign, targets = _signs(clean.detach(), now.detach(), targets, attacked, reduction, means)
    return coefficients_of_signs(now, sign, attacked, scale), sign, targets.detach().clone()


def coefficients_of_signs(now: Tensor, sign: Tensor, attacked: Attacked, scale: float) -> Tensor:
    """``-scale * s_i * a'(now_i)`` for signs that are known, (2, n) or (B, 2, n) each; differentiable in ``now``."""
    slopes = [slope(a, now[..., i, :]) for i, a in enumerate(attacked)]
    return -scale * (sign * torch.stack(slopes, dim=-2))


def _signs(
    clean: Tensor, now: Tensor, targets: Tensor | None, attacked: Attacked, reduction: str, means: Means
) -> tuple[Tensor, Tensor]:
    """The sign of each residual and the targets."""
    values = [a(now[..., i, :]) for i, a in enumerate(attacked)]
    wanted = [] if targets is not None else [a(clean[..., 1 - i, :]) for i, a in enumerate(attacked)]
    if reduction == "batch":
        wanted += values
    found = means(wanted) if wanted else []
    if targets is None:
        targets = torch.stack(found[:2], dim=-1)
    value = torch.stack(values, dim=-2)
    if reduction == "batch":
        value = torch.stack(found[-2:], dim=-1)[..., None].expand_as(value)
    residual = value - targets[..., None]
    return torch.where(residual.isnan(), residual, torch.sign(residual)), targets


def function_of_code(code: str) -> LogitFunction:
    """Raises: ValueError, for a code that is not in the table."""
    if code not in TABLE:
        raise ValueError(f"unknown attacked function {code!r}: choose from {', '.join(TABLE)}")
    return TABLE[code]


# --- spectral norm ------------------------------------------------------------------------------------------------


def check_spectral_norm(weights: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor]) -> None:
    """Raises: ValueError, where the arguments of ``spectral_norm`` do not fit together."""
    if not weights or not len(weights) == len(us) == len(vs):
        raise ValueError(
            f"weights, us and vs must be as many, at least one: got {len(weights)}, {len(us)} and {len(vs)}"
        )
    for i, (w, u, v) in enumerate(zip(weights, us, vs, strict=True)):
        if w.ndim < 2 or w.numel() == 0:
            raise ValueError(
                f"weights[{i}] must be (rows, columns, ...) and hold something, got shape {tuple(w.shape)}"
            )
        shapes = (w.shape[0],), (w[0].numel(),)
        if (tuple(u.shape), tuple(v.shape)) != shapes:
            raise ValueError(
                f"u and v of weights[{i}], of shape {tuple(w.shape)}, must be of shapes {shapes[0]} and {shapes[1]}, "
                f"got {tuple(u.shape)} and {tuple(v.shape)}"
            )
        if w.dtype != weights[0].dtype or w.device != weights[0].device:
            raise ValueError(
                f"weights must share one dtype and device, got {weights[0].dtype} on {weights[0].device} and "
                f"{w.dtype} on {w.device} (weights[{i}]): normalise each kind in a call of its own"
            )


def spectral_norm(
    weights: Sequence[Tensor],
    us: Sequence[Tensor],
    vs: Sequence[Tensor],
    iterations: int,
    eps: float,
    u_first: bool,
    out_dtype: torch.dtype,
) -> tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    """``W / sigma`` with ``sigma = u' W v``, W being a weight as a matrix (rows, columns), after its power iterations.

    Differentiable to any order in the weights; u and v are constants.

    Args:
        weights: (rows, ...) each, of one dtype.
        us, vs: unit vectors (rows,) and (columns,).
        iterations: ``u = Wv / max(|Wv|, eps)``, ``v = W'u / max(|W'u|, eps)``, so many times; 0 leaves both alone.
        eps: the least norm divided by.
        u_first: the order in an iteration; torch's parametrization updates u first, its older hook v.
        out_dtype: of the results.

    Returns:
        ``W / sigma`` in the shapes of ``weights``; u and v; sigma (L,). The arithmetic, u, v and sigma are in fp32
        or wider.

    Raises:
        ValueError: weights of several dtypes or devices, or vectors that are not theirs.
    """
    check_spectral_norm(weights, us, vs)
    normalised, new_us, new_vs, sigmas = [], [], [], []
    for weight, u, v in zip(weights, us, vs, strict=True):
        wide = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
        W = wide.flatten(1)
        # Copies, since u and v may be buffers that move before the backward pass.
        u, v = u.to(W.dtype, copy=True), v.to(W.dtype, copy=True)
        constant = W.detach()
        for _ in range(iterations):
            if u_first:
                u = F.normalize(constant.mv(v), dim=0, eps=eps)
            v = F.normalize(constant.mH.mv(u), dim=0, eps=eps)
            if not u_first:
                u = F.normalize(constant.mv(v), dim=0, eps=eps)
        sigma = torch.vdot(u, W.mv(v))
        normalised.append((wide / sigma).to(out_dtype))
        new_us.append(u)
        new_vs.append(v)
        sigmas.append(sigma)
    return normalised, tuple(new_us), tuple(new_vs), torch.stack(sigmas)

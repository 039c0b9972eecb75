"""The attack as one coefficient a sample: ``c_i = -scale * s_i * a'(D_i)``, ``s = sign(a(D) - t)``.

Targets, their means, signs and slopes in one launch of one program per batch: 2 or 3 reads of the 2n logits and one
write each of coefficients and signs. The time is that of one launch; the PyTorch formula needs about 20.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdat.kernels.formulas import check_attack_coefficients, function_of_code
from fastdat.kernels.logit_functions import LogitFunction
from fastdat.kernels.offline import Variant
from fastdat.kernels.operator import must_launch, operator
from fastdat.kernels.rounding import divide

BLOCK = 1024
"""Logits a program handles at once."""
NUM_WARPS = 4


# --- the attacked functions ---------------------------------------------------------------------------------------


@triton.jit
def log1p_exp_of_minus(u):
    """``log(1 + exp(-u))``, u >= 0, to full precision: ``log(w) e / (w - 1)``, w = 1 + e, takes back w's rounding."""
    e = tl.exp(-u)
    w = 1.0 + e
    return tl.where(w == 1.0, e, tl.log(w) * divide(e, tl.where(w == 1.0, 1.0, w - 1.0)))


@triton.jit
def softplus(t):
    """As torch has it: t itself above 20."""
    rest = log1p_exp_of_minus(tl.abs(t))
    return tl.where(t > 20.0, t, tl.where(t < 0.0, rest, t + rest))


@triton.jit
def sigmoid(t):
    """Slope of ``softplus``."""
    e = tl.exp(-tl.abs(t))
    return tl.where(t > 20.0, 1.0, divide(tl.where(t < 0.0, e, 1.0), 1.0 + e))


@triton.jit
def relu(t):
    return tl.where(t <= 0.0, 0.0, t)


@triton.jit
def attacked_value(t, NAME: tl.constexpr):
    """``a(t)``."""
    if NAME == "hinge.g1":
        return -relu(1.0 - t)
    elif NAME == "hinge.g2":
        return -relu(1.0 + t)
    elif NAME == "gan.g1":
        return -softplus(-t)
    elif NAME == "gan.g2":
        return -softplus(t)
    elif NAME == "lsgan.g1":
        return -(t - 1.0) * (t - 1.0)
    elif NAME == "lsgan.g2":
        return -t * t
    elif NAME == "wgan.g2":
        return -t
    else:
        tl.static_assert(NAME == "identity" or NAME == "wgan.g1")
        return t


@triton.jit
def attacked_slope(t, NAME: tl.constexpr):
    """``a'(t)``; a relu has slope 0 at 0."""
    if NAME == "hinge.g1":
        return tl.where(1.0 - t <= 0.0, 0.0, 1.0)
    elif NAME == "hinge.g2":
        return tl.where(1.0 + t <= 0.0, 0.0, -1.0)
    elif NAME == "gan.g1":
        return sigmoid(-t)
    elif NAME == "gan.g2":
        return -sigmoid(t)
    elif NAME == "lsgan.g1":
        return -2.0 * (t - 1.0)
    elif NAME == "lsgan.g2":
        return -2.0 * t
    elif NAME == "wgan.g2":
        return tl.full(t.shape, -1.0, t.dtype)
    else:
        tl.static_assert(NAME == "identity" or NAME == "wgan.g1")
        return tl.full(t.shape, 1.0, t.dtype)


# --- kernel -------------------------------------------------------------------------------------------------------


@triton.jit
def mean_of_attacked(p_logits, n, NAME: tl.constexpr, BLOCK: tl.constexpr):
    """``mean_i a(logits_i)``; added up in float64, which n additions of one program can afford."""
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, n, BLOCK):
        o = start + tl.arange(0, BLOCK)
        b_value = attacked_value(tl.load(p_logits + o, mask=o < n, other=0.0), NAME)
        total += tl.where(o < n, b_value, 0.0).to(tl.float64)
    return (tl.sum(total) / n).to(p_logits.dtype.element_ty)


@triton.jit
def write_side(
    p_now, p_coefficient, p_sign, target, scale, n,
    NAME: tl.constexpr, PER_SAMPLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Signs and coefficients of one side."""
    dtype: tl.constexpr = p_now.dtype.element_ty
    strength = tl.full((), scale, dtype)
    value = target  # of the whole side; not read PER_SAMPLE
    if not PER_SAMPLE:
        value = mean_of_attacked(p_now, n, NAME, BLOCK)
    for start in range(0, n, BLOCK):
        o = start + tl.arange(0, BLOCK)
        b_now = tl.load(p_now + o, mask=o < n, other=0.0)
        b_value = value
        if PER_SAMPLE:
            b_value = attacked_value(b_now, NAME)
        residual = tl.zeros((BLOCK,), dtype) + (b_value - target)
        b_sign = tl.where(residual > 0.0, 1.0, tl.where(residual < 0.0, -1.0, 0.0)).to(dtype)
        b_sign = tl.where(residual != residual, residual, b_sign)  # NaN, which comparisons turn into 0
        tl.store(p_sign + o, b_sign, mask=o < n)
        tl.store(p_coefficient + o, -strength * (b_sign * attacked_slope(b_now, NAME)), mask=o < n)


@triton.jit(do_not_specialize=["n"])
def attack_coefficients_kernel(
    clean,  # (B, 2, n)
    now,  # (B, 2, n)
    targets,  # (B, 2), or None
    coefficient,  # (B, 2, n)
    sign,  # (B, 2, n)
    target_out,  # (B, 2)
    scale: tl.float64,
    n,
    REAL: tl.constexpr,
    FAKE: tl.constexpr,
    PER_SAMPLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_batch = tl.program_id(0).to(tl.int64)
    real, fake = i_batch * 2 * n, (i_batch * 2 + 1) * n
    if targets is None:
        t_real = mean_of_attacked(clean + fake, n, REAL, BLOCK)
        t_fake = mean_of_attacked(clean + real, n, FAKE, BLOCK)
    else:
        t_real, t_fake = tl.load(targets + i_batch * 2), tl.load(targets + i_batch * 2 + 1)
    tl.store(target_out + i_batch * 2, t_real)
    tl.store(target_out + i_batch * 2 + 1, t_fake)
    write_side(now + real, coefficient + real, sign + real, t_real, scale, n, REAL, PER_SAMPLE, BLOCK)
    write_side(now + fake, coefficient + fake, sign + fake, t_fake, scale, n, FAKE, PER_SAMPLE, BLOCK)


# --- operator -----------------------------------------------------------------------------------------------------


def _launch(
    clean: Tensor,
    now: Tensor,
    targets: Tensor | None,
    attacked_real: str,
    attacked_fake: str,
    reduction: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, signs and targets; a schema holds no functions, so their codes stand for ``a_r`` and ``a_f``."""
    check_attack_coefficients(clean, now, targets, reduction)
    for code in (attacked_real, attacked_fake):
        function_of_code(code)  # raises for an unknown code
    coefficient, sign, target = (now.new_empty(shape) for shape in (now.shape, now.shape, now.shape[:-1]))
    if must_launch(target):
        with torch.cuda.device_of(now):
            attack_coefficients_kernel[target.numel() // 2,](
                clean.contiguous(), now.contiguous(), None if targets is None else targets.contiguous(),
                coefficient, sign, target, scale, now.shape[-1],
                REAL=attacked_real, FAKE=attacked_fake, PER_SAMPLE=reduction == "sample", BLOCK=BLOCK,
                num_warps=NUM_WARPS,
            )  # fmt: skip
    return coefficient, sign, target


def _vmap(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
    """A mapped axis becomes part of the leading axis: one program each."""
    spread: list[Any] = [
        t if t is None else t.expand(info.batch_size, *t.shape) if axis is None else t.movedim(axis, 0)
        for t, axis in zip(args[:3], in_dims, strict=False)
    ]
    groups = [
        t if t is None else t.reshape(-1, *t.shape[-k:]) for t, k in zip(spread, (2, 2, 1), strict=True)
    ]
    found = op(*groups, *args[3:])
    grouped = spread[1].shape[:-2]
    return tuple(t.unflatten(0, grouped) for t in found), (0, 0, 0)


# --- derivative ---------------------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, now, _, *ctx.attacked, _, ctx.scale = inputs
    _, sign, target = output
    ctx.save_for_backward(now, sign)
    ctx.mark_non_differentiable(sign, target)


def _backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    """``d now = G (-scale s a''(now))``; signs and targets are constants."""
    now, sign = ctx.saved_tensors
    sides = []
    for i, code in enumerate(ctx.attacked):
        logits, curvature = now[..., i, :], function_of_code(code).curvature
        sides.append(torch.zeros_like(logits) if curvature is None else curvature(logits))
    return None, upstream * (-ctx.scale * (sign * torch.stack(sides, dim=-2))), *(None,) * 5


_of_codes = operator("attack_coefficients", _launch, setup_context=_keep, backward=_backward, vmap=_vmap)


def attack_coefficients(
    clean: Tensor,
    now: Tensor,
    targets: Tensor | None,
    attacked: tuple[LogitFunction, LogitFunction],
    reduction: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``formulas.attack_coefficients``, of functions that are in the table and with means of this process."""
    real, fake = attacked
    coefficient, sign, target = _of_codes(clean, now, targets, real.code, fake.code, reduction, scale)
    return coefficient, sign, target


# --- compiled without a GPU ---------------------------------------------------------------------------------------


def _variant(dtype: str, attacked: tuple[str, str], per_sample: bool, given: bool) -> Variant:
    real, fake = attacked
    constants: dict[str, Any] = {"REAL": real, "FAKE": fake, "PER_SAMPLE": per_sample, "BLOCK": BLOCK}
    if not given:
        constants["targets"] = None
    pointers = ("clean", "now", "targets", "coefficient", "sign", "target_out")
    types = {**dict.fromkeys(pointers, f"*{dtype}"), "scale": "fp64", "n": "i32"}
    types |= dict.fromkeys(constants, "constexpr")
    name = f"{dtype}, {real}, {fake}, {'sample' if per_sample else 'batch'}{', targets' if given else ''}"
    kernel = attack_coefficients_kernel
    return Variant(kernel, name, {a: types[a] for a in kernel.arg_names}, constants, NUM_WARPS)


OFFLINE = (
    *(
        _variant("fp32", (f"{loss}.g1", f"{loss}.g2"), per_sample, given=False)
        for loss in ("hinge", "gan", "lsgan", "wgan")
        for per_sample in (False, True)
    ),
    _variant("fp32", ("identity", "identity"), False, given=False),
    _variant("fp32", ("identity", "identity"), True, given=True),
    _variant("fp32", ("gan.g2", "gan.g1"), False, given=True),
    _variant("fp64", ("gan.g1", "gan.g2"), False, given=False),
    _variant("fp64", ("identity", "identity"), True, given=False),
)

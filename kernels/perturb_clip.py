"""One attack step on every sample: ``x_hat = clip(x + clamp(c_i * g, -delta_clip, delta_clip), low, high)``.

==========  =======================================================================  ==================================
operation   memory traffic                                                           launches
==========  =======================================================================  ==================================
forward     reads x and g, writes x_hat: 12 bytes an element in float32, 6 in bf16    1
with stats  the same, and 8 bytes a block of 1024 elements                           2: the partial sums are added up
backward    reads the gradient, x and g, writes dx and dg: 20 bytes in float32       2: as above, for dc
==========  =======================================================================  ==================================

A batch is read and written in the layout of x as long as each sample is one dense run of memory (NCHW and
channels_last are); otherwise x is made contiguous first, and a ``grad`` of another layout than x is copied into that
of x: one more pass each. A coefficient of another dtype than that of the arithmetic (float32; float64 where any
argument is) is converted, which is one more launch.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdat.kernels import formulas
from fastdat.kernels.formulas import Limits, arithmetic_dtype, check_perturb_clip
from fastdat.kernels.offline import Variant
from fastdat.kernels.operator import must_launch, operator

BLOCK = 1024
"""Elements a program handles, 8 a thread."""
NUM_WARPS = 4


# --- kernels ------------------------------------------------------------------------------------------------------


@triton.jit
def clamp(value, low, high):
    """NaN stays NaN, which minimum and maximum would hide."""
    return tl.where(value > high, high, tl.where(value < low, low, value))


@triton.jit
def round_to(value, dtype: tl.constexpr):
    """float64 by way of float32 to 16 bits: neither the interpreter nor every GPU rounds float64 to bf16 at once."""
    if value.dtype == tl.float64 and dtype.primitive_bitwidth == 16:
        value = value.to(tl.float32)
    return value.to(dtype)


@triton.jit(do_not_specialize=["clip_from"])
def perturb_clip_kernel(
    x,  # (N, size)
    grad,  # (N, size)
    coefficient,  # (N,), in the dtype of the arithmetic
    out,  # (N, size)
    partials,  # (N, blocks, 2), written only WITH_STATS
    size,
    clip_from,
    DELTA_CLIP: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    WITH_STATS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = (size + BLOCK - 1) // BLOCK
    i = tl.program_id(0)
    i_sample, i_block = (i // blocks).to(tl.int64), i % blocks
    o = i_block * BLOCK + tl.arange(0, BLOCK)
    m = o < size
    b_c = tl.load(coefficient + i_sample)
    dtype: tl.constexpr = b_c.dtype
    b_x = tl.load(x + i_sample * size + o, mask=m, other=0.0).to(dtype)
    b_delta = b_c * tl.load(grad + i_sample * size + o, mask=m, other=0.0).to(dtype)
    limited = tl.zeros((BLOCK,), tl.int1)
    if DELTA_CLIP is not None:
        limit = tl.full((), DELTA_CLIP, dtype)
        limited = tl.abs(b_delta) > limit
        b_delta = clamp(b_delta, -limit, limit)
    b_out = b_x + b_delta
    if LOW is not None:  # noqa: SIM102 - one is known at compile time, the other at run time
        if i_sample >= clip_from:
            low, high = tl.full((), LOW, dtype), tl.full((), HIGH, dtype)
            limited = limited | (b_out < low) | (b_out > high)
            b_out = clamp(b_out, low, high)
    tl.store(out + i_sample * size + o, round_to(b_out, out.dtype.element_ty), mask=m)
    if WITH_STATS:
        applied = tl.where(m, b_out - b_x, 0.0)
        p = partials + (i_sample * blocks + i_block) * 2
        tl.store(p, tl.sum(applied * applied))
        tl.store(p + 1, tl.sum((m & limited).to(tl.float32)))


@triton.jit(do_not_specialize=["clip_from"])
def perturb_clip_backward_kernel(
    upstream,  # (N, size), gradient of x_hat
    x,  # (N, size)
    grad,  # (N, size)
    coefficient,  # (N,), in the dtype of the arithmetic
    dx,  # (N, size)
    dg,  # (N, size)
    partials,  # (N, blocks), of dc
    size,
    clip_from,
    DELTA_CLIP: tl.constexpr,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = (size + BLOCK - 1) // BLOCK
    i = tl.program_id(0)
    i_sample, i_block = (i // blocks).to(tl.int64), i % blocks
    o = i_block * BLOCK + tl.arange(0, BLOCK)
    m = o < size
    b_c = tl.load(coefficient + i_sample)
    dtype: tl.constexpr = b_c.dtype
    b_dx = tl.load(upstream + i_sample * size + o, mask=m, other=0.0).to(dtype)
    b_g = tl.load(grad + i_sample * size + o, mask=m, other=0.0).to(dtype)
    b_delta = b_c * b_g
    passes = m
    if DELTA_CLIP is not None:
        limit = tl.full((), DELTA_CLIP, dtype)
        passes = tl.abs(b_delta) <= limit
        b_delta = clamp(b_delta, -limit, limit)
    if LOW is not None:  # noqa: SIM102 - one is known at compile time, the other at run time
        if i_sample >= clip_from:
            low, high = tl.full((), LOW, dtype), tl.full((), HIGH, dtype)
            b_out = tl.load(x + i_sample * size + o, mask=m, other=0.0).to(dtype) + b_delta
            b_dx = tl.where((b_out >= low) & (b_out <= high), b_dx, 0.0)
    b_ddelta = tl.where(passes, b_dx, 0.0)
    tl.store(dx + i_sample * size + o, round_to(b_dx, dx.dtype.element_ty), mask=m)
    tl.store(dg + i_sample * size + o, round_to(b_ddelta * b_c, dg.dtype.element_ty), mask=m)
    tl.store(partials + i_sample * blocks + i_block, tl.sum(tl.where(m, b_ddelta * b_g, 0.0)))


# --- memory layout ------------------------------------------------------------------------------------------------


def sample_major(x: Tensor) -> Tensor:
    """``x``, or a contiguous copy where a sample is not one dense run of memory, one after another; (N, ...)."""
    dense = 1
    for stride, length in sorted(zip(x.stride()[1:], x.shape[1:], strict=True)):
        if length != 1 and stride != dense:
            return x.contiguous()
        dense *= length
    return x if x.shape[0] == 1 or x.stride(0) == dense else x.contiguous()


def in_layout_of(x: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` with the strides of ``x``, which is sample-major; copied where it has others."""
    axes = zip(tensor.stride(), x.stride(), x.shape, strict=True)
    if all(mine == wanted or length == 1 for mine, wanted, length in axes):
        return tensor
    return torch.empty_like(x, dtype=tensor.dtype).copy_(tensor)


def sizes(x: Tensor) -> tuple[int, int, int]:
    """Samples, elements of one sample, blocks of one sample."""
    size = x.numel() // x.shape[0]
    return x.shape[0], size, -(-size // BLOCK)


# --- operators ----------------------------------------------------------------------------------------------------


def _launch(x, grad, coefficient, limits, out_dtype, with_stats=False):
    """x_hat (N, ...), and with stats their partial sums (N, blocks, 2), else None."""
    check_perturb_clip(x, grad, coefficient, limits)
    dtype = arithmetic_dtype(x, grad, coefficient)
    x = sample_major(x)
    n, size, blocks = sizes(x)
    out = torch.empty_like(x, dtype=out_dtype or x.dtype)
    partials = x.new_empty((n, blocks, 2), dtype=dtype) if with_stats else None
    if must_launch(out):
        low, high = limits.bounds or (None, None)
        with torch.cuda.device_of(x):
            perturb_clip_kernel[n * blocks,](
                x, in_layout_of(x, grad), coefficient.to(dtype).contiguous(), out, partials,
                size, limits.clip_from, DELTA_CLIP=limits.delta_clip, LOW=low, HIGH=high,
                WITH_STATS=with_stats, BLOCK=BLOCK, num_warps=NUM_WARPS,
            )  # fmt: skip
    return out, partials


def _launch_with_stats(x, grad, coefficient, limits, out_dtype):
    out, partials = _launch(x, grad, coefficient, limits, out_dtype, with_stats=True)
    return out, partials.sum(1)


def _launch_backward(
    upstream: Tensor, x: Tensor, grad: Tensor, coefficient: Tensor, limits: Limits
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dg (N, ...) and dc (N,)."""
    dtype = arithmetic_dtype(x, grad, coefficient)
    x = sample_major(x)
    n, size, blocks = sizes(x)
    dx, dg = torch.empty_like(x), torch.empty_like(x, dtype=grad.dtype)
    partials = x.new_empty((n, blocks), dtype=dtype)
    if must_launch(dx):
        low, high = limits.bounds or (None, None)
        with torch.cuda.device_of(x):
            perturb_clip_backward_kernel[n * blocks,](
                in_layout_of(x, upstream), x, in_layout_of(x, grad), coefficient.to(dtype).contiguous(), dx, dg,
                partials, size, limits.clip_from, DELTA_CLIP=limits.delta_clip, LOW=low, HIGH=high, BLOCK=BLOCK,
                num_warps=NUM_WARPS,
            )  # fmt: skip
    return dx, dg, partials.sum(1).to(coefficient.dtype)


def _vmap(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
    """A mapped axis becomes part of the samples: behind their own axis, so that ``clip_from`` still divides them."""
    batch = info.batch_size
    at = next(i for i, arg in enumerate(args) if isinstance(arg, Limits))
    folded = []
    for tensor, axis in zip(args[:at], in_dims, strict=False):
        if axis is None:
            tensor = tensor.unsqueeze(1).expand(tensor.shape[0], batch, *tensor.shape[1:])
        else:
            tensor = tensor.movedim(axis, 1)
        folded.append(tensor.flatten(0, 1))
    limits = args[at]._replace(clip_from=args[at].clip_from * batch)
    found = op(*folded, limits, *args[at + 1 :])
    if isinstance(found, Tensor):
        return found.unflatten(0, (-1, batch)), 1
    return tuple(t.unflatten(0, (-1, batch)) for t in found), (1,) * len(found)


# --- derivatives --------------------------------------------------------------------------------------------------


def _keep_for_second_order(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *given, ctx.limits = inputs
    ctx.save_for_backward(*given)


def _backward_of_backward(
    ctx: Any, into_dx: Tensor, into_dg: Tensor, into_dc: Tensor
) -> tuple[Tensor | None, ...]:
    """The masks are constants: ``dx = G inside``, ``dg = c G inside pass`` and ``dc = sum(g G inside pass)``."""
    delta_clip, bounds, clip_from = ctx.limits
    given = ctx.saved_tensors
    dtype = arithmetic_dtype(*given[1:])
    upstream, x, grad, c, into_dx, into_dg, into_dc = (
        t.to(dtype) for t in (*given, into_dx, into_dg, into_dc)
    )
    c, into_dc = (t.reshape(-1, *(1,) * (x.ndim - 1)) for t in (c, into_dc))  # (N, 1, ...)
    delta = c * grad
    passes = torch.ones_like(delta, dtype=torch.bool)
    if delta_clip is not None:
        passes = delta.abs() <= delta_clip
        delta = torch.clamp(delta, -delta_clip, delta_clip)
    inside = torch.ones_like(passes)
    if bounds is not None:
        inside = (x + delta >= bounds[0]) & (x + delta <= bounds[1])
        inside = torch.cat([torch.ones_like(inside[:clip_from]), inside[clip_from:]])
    d_upstream = torch.where(inside, into_dx + torch.where(passes, c * into_dg + into_dc * grad, 0.0), 0.0)
    through = torch.where(inside & passes, upstream, 0.0)
    found = (d_upstream, None, through * into_dc, (through * into_dg).reshape(x.shape[0], -1).sum(1))
    return *(None if t is None else t.to(g.dtype) for t, g in zip(found, given, strict=True)), None


_perturb_clip_backward = operator(
    "perturb_clip_backward",
    _launch_backward,
    setup_context=_keep_for_second_order,
    backward=_backward_of_backward,
    vmap=_vmap,
)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *given, ctx.limits, _ = inputs
    ctx.save_for_backward(*given)
    if isinstance(output, tuple):
        ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    """``dx = G inside``, ``dg = c_i G inside pass``, ``dc_i = sum_j(g_ij G_ij inside pass)``, where a limit lets its
    argument pass up to and on the limit."""
    return *_perturb_clip_backward(upstream, *ctx.saved_tensors, ctx.limits), None, None


perturb_clip = operator(
    "perturb_clip",
    lambda *args: _launch(*args)[0],
    like=formulas.perturb_clip,
    setup_context=_keep,
    backward=_backward,
    vmap=_vmap,
)
"""As ``formulas.perturb_clip``; x_hat has the layout of x."""

perturb_clip_stats = operator(
    "perturb_clip_stats",
    _launch_with_stats,
    like=formulas.perturb_clip_stats,
    setup_context=_keep,
    backward=_backward,
    vmap=_vmap,
)
"""As ``formulas.perturb_clip_stats``; counts are exact up to 2^24 elements a sample."""


# --- compiled without a GPU ---------------------------------------------------------------------------------------

_LIMITS: dict[str, dict[str, Any]] = {
    "limits": {"DELTA_CLIP": 1.0, "LOW": -1.0, "HIGH": 1.0},
    "none": dict.fromkeys(("DELTA_CLIP", "LOW", "HIGH")),
}


def _variant(kernel: Any, of_x: str, of_grad: str, limits: str, aligned: bool = True, **more: Any) -> Variant:
    """``kernel`` for samples, results and gradients of these dtypes, as Triton names them."""
    wide = "fp64" if "fp64" in (of_x, of_grad) else "fp32"
    types = dict.fromkeys(("upstream", "x", "out", "dx"), f"*{of_x}")
    types |= {"grad": f"*{of_grad}", "dg": f"*{of_grad}", "coefficient": f"*{wide}", "partials": f"*{wide}"}
    constants = {**_LIMITS[limits], **more, "BLOCK": BLOCK}
    if more.get("WITH_STATS") is False:
        constants["partials"] = None
    types |= {"size": "i32", "clip_from": "i32"} | dict.fromkeys(constants, "constexpr")
    details = ["stats"] * more.get("WITH_STATS", False) + ["any size"] * (not aligned)
    name = ", ".join([of_x if of_x == of_grad else f"{of_x} grad {of_grad}", limits, *details])
    signature = {argument: types[argument] for argument in kernel.arg_names}
    return Variant(kernel, name, signature, constants, NUM_WARPS, ("size",) * aligned)


def _variants(of_x: str, of_grad: str, limits: str = "limits", aligned: bool = True) -> tuple[Variant, ...]:
    return (
        _variant(perturb_clip_kernel, of_x, of_grad, limits, aligned, WITH_STATS=False),
        _variant(perturb_clip_kernel, of_x, of_grad, limits, aligned, WITH_STATS=True),
        _variant(perturb_clip_backward_kernel, of_x, of_grad, limits, aligned),
    )


OFFLINE = (
    *(v for dtype in ("fp32", "bf16", "fp16", "fp64") for v in _variants(dtype, dtype)),
    *_variants("fp32", "bf16"),
    *_variants("bf16", "fp64"),
    *_variants("fp32", "fp32", "none"),
    *_variants("fp32", "fp32", aligned=False),
)

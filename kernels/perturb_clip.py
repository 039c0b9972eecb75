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

from fastdat.kernels.differentiable import differentiable
from fastdat.kernels.formulas import arithmetic_dtype, check_perturb_clip
from fastdat.kernels.offline import Variant

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

Limits = tuple[float | None, float | None, float | None, int]
"""delta_clip, low, high, clip_from."""


def _check(x: Tensor, grad: Tensor, coefficient: Tensor, limits: Limits) -> None:
    _, low, high, clip_from = limits
    check_perturb_clip(x, grad, coefficient, clip_from)
    if (low is None) != (high is None):
        raise ValueError(f"low and high must both be numbers or both None, got {low} and {high}")


def _launch(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    limits: Limits,
    out_dtype: torch.dtype | None,
    with_stats: bool,
) -> tuple[Tensor, Tensor | None]:
    """x_hat (N, ...), and the partial sums of the stats (N, blocks, 2) if asked for."""
    _check(x, grad, coefficient, limits)
    delta_clip, low, high, clip_from = limits
    dtype = arithmetic_dtype(x, grad, coefficient)
    x = sample_major(x)
    n, size, blocks = sizes(x)
    out = torch.empty_like(x, dtype=out_dtype or x.dtype)
    partials = x.new_empty((n, blocks, 2), dtype=dtype) if with_stats else None
    with torch.cuda.device_of(x):
        perturb_clip_kernel[n * blocks,](
            x, in_layout_of(x, grad), coefficient.to(dtype).contiguous(), out, partials, size, clip_from,
            DELTA_CLIP=delta_clip, LOW=low, HIGH=high, WITH_STATS=with_stats, BLOCK=BLOCK, num_warps=NUM_WARPS,
        )  # fmt: skip
    return out, partials


@torch.library.custom_op("fastdat::perturb_clip", mutates_args=())
def perturb_clip_op(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    delta_clip: float | None,
    low: float | None,
    high: float | None,
    clip_from: int,
    out_dtype: torch.dtype | None,
) -> Tensor:
    return _launch(x, grad, coefficient, (delta_clip, low, high, clip_from), out_dtype, False)[0]


@perturb_clip_op.register_fake
def _(x, grad, coefficient, delta_clip, low, high, clip_from, out_dtype):
    _check(x, grad, coefficient, (delta_clip, low, high, clip_from))
    return torch.empty_like(sample_major(x), dtype=out_dtype or x.dtype)


@torch.library.custom_op("fastdat::perturb_clip_stats", mutates_args=())
def perturb_clip_stats_op(
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    delta_clip: float | None,
    low: float | None,
    high: float | None,
    clip_from: int,
    out_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    out, partials = _launch(x, grad, coefficient, (delta_clip, low, high, clip_from), out_dtype, True)
    assert partials is not None
    return out, partials.sum(1)


@perturb_clip_stats_op.register_fake
def _(x, grad, coefficient, delta_clip, low, high, clip_from, out_dtype):
    _check(x, grad, coefficient, (delta_clip, low, high, clip_from))
    out = torch.empty_like(sample_major(x), dtype=out_dtype or x.dtype)
    return out, x.new_empty((x.shape[0], 2), dtype=arithmetic_dtype(x, grad, coefficient))


@torch.library.custom_op("fastdat::perturb_clip_backward", mutates_args=())
def perturb_clip_backward_op(
    upstream: Tensor,
    x: Tensor,
    grad: Tensor,
    coefficient: Tensor,
    delta_clip: float | None,
    low: float | None,
    high: float | None,
    clip_from: int,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = arithmetic_dtype(x, grad, coefficient)
    x = sample_major(x)
    n, size, blocks = sizes(x)
    dx, dg = torch.empty_like(x), torch.empty_like(x, dtype=grad.dtype)
    partials = x.new_empty((n, blocks), dtype=dtype)
    with torch.cuda.device_of(x):
        perturb_clip_backward_kernel[n * blocks,](
            in_layout_of(x, upstream), x, in_layout_of(x, grad), coefficient.to(dtype).contiguous(), dx, dg, partials,
            size, clip_from, DELTA_CLIP=delta_clip, LOW=low, HIGH=high, BLOCK=BLOCK, num_warps=NUM_WARPS,
        )  # fmt: skip
    return dx, dg, partials.sum(1).to(coefficient.dtype)


@perturb_clip_backward_op.register_fake
def _(upstream, x, grad, coefficient, delta_clip, low, high, clip_from):
    dense = sample_major(x)
    return (
        torch.empty_like(dense),
        torch.empty_like(dense, dtype=grad.dtype),
        coefficient.new_empty(x.shape[:1]),
    )


def _register_vmap(op: Any, tensors: int) -> None:
    """A mapped axis becomes part of the samples: behind their own axis, so that ``clip_from`` still divides them."""

    @op.register_vmap
    def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        batch = info.batch_size
        folded = []
        for tensor, axis in zip(args[:tensors], in_dims, strict=False):
            if axis is None:
                tensor = tensor.unsqueeze(1).expand(tensor.shape[0], batch, *tensor.shape[1:])
            else:
                tensor = tensor.movedim(axis, 1)
            folded.append(tensor.flatten(0, 1))
        delta_clip, low, high, clip_from, *dtype = args[tensors:]
        found = op(*folded, delta_clip, low, high, clip_from * batch, *dtype)
        if isinstance(found, Tensor):
            return found.unflatten(0, (-1, batch)), 1
        return tuple(t.unflatten(0, (-1, batch)) for t in found), (1,) * len(found)


_register_vmap(perturb_clip_op, 3)
_register_vmap(perturb_clip_stats_op, 3)
_register_vmap(perturb_clip_backward_op, 4)


# --- derivatives --------------------------------------------------------------------------------------------------


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.limits = inputs[4:]
    ctx.save_for_backward(*inputs[:4])


def _backward_of_backward(
    ctx: Any, into_dx: Tensor, into_dg: Tensor, into_dc: Tensor
) -> tuple[Tensor | None, ...]:
    """The masks are constants: ``dx = G inside``, ``dg = c G inside pass`` and ``dc = sum(g G inside pass)``."""
    delta_clip, low, high, clip_from = ctx.limits
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
    if low is not None:
        inside = (x + delta >= low) & (x + delta <= high)
        inside = torch.cat([torch.ones_like(inside[:clip_from]), inside[clip_from:]])
    d_upstream = torch.where(inside, into_dx + torch.where(passes, c * into_dg + into_dc * grad, 0.0), 0.0)
    through = torch.where(inside & passes, upstream, 0.0)
    found = (d_upstream, None, through * into_dc, (through * into_dg).reshape(x.shape[0], -1).sum(1))
    return *(None if t is None else t.to(g.dtype) for t, g in zip(found, given, strict=True)), *(None,) * 4


_perturb_clip_backward = differentiable(perturb_clip_backward_op, _setup_backward, _backward_of_backward)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.limits = inputs[3:7]
    ctx.save_for_backward(*inputs[:3])
    if isinstance(output, tuple):
        ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    """``dx = G inside``, ``dg = c_i G inside pass``, ``dc_i = sum_j(g_ij G_ij inside pass)``, where a limit lets its
    argument pass up to and on the limit."""
    return *_perturb_clip_backward(upstream, *ctx.saved_tensors, *ctx.limits), *(None,) * 5


perturb_clip = differentiable(perturb_clip_op, _setup, _backward)
"""(x, grad, coefficient, delta_clip, low, high, clip_from, out_dtype) -> x_hat, in the layout of x.
As ``formulas.perturb_clip``."""

perturb_clip_stats = differentiable(perturb_clip_stats_op, _setup, _backward)
"""The same arguments -> x_hat, stats (N, 2). As ``formulas.perturb_clip_stats``; counts are exact up to
2^24 elements a sample."""


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

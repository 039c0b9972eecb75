"""The derivative of ``W / sigma`` for all of D's weights, in two launches.

With G the gradient of ``W / sigma``, ``ds`` that of sigma, and u and v constants::

    launch 1: partial sums of <G, W>
    launch 2: dW = G / sigma + (ds - <G, W> / sigma^2) u v'

G is read twice, W once, dW written once. The derivative of this in turn is its plain formula.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdat.kernels.dispatch import INTERPRETED
from fastdat.kernels.multi_tensor import (
    BLOCK,
    COLS,
    INNER,
    OUTER,
    ROWS,
    SNGAN_32,
    START,
    TRITON_TYPE,
    U_COUNT,
    U_SUMS,
    WARPS,
    U,
    V,
    aligned,
    as_stored,
    blocks,
    index_of_layer,
    largest,
    layer_of,
    of_layer,
    plan,
    pointer_of_layer,
    size_of_layer,
    split_state,
    sum_of,
)
from fastdat.kernels.offline import Variant
from fastdat.kernels.operator import must_launch, operator
from fastdat.kernels.rounding import divide

COMBINE_TILE = (16, 128)
BLOCKS_A_DOT = 8


@triton.jit
def _dot_kernel(
    p_grads,  # tuple of L pointers to G
    p_weights,  # tuple of L pointers to weights
    p_dots,
    LAYERS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
    N: tl.constexpr,
    ACC: tl.constexpr,
):
    """A partial sum of <G, W>, over N blocks of one layer."""
    i = tl.program_id(0)
    p_grad = pointer_of_layer(i, p_grads, LAYERS, ALIGNED)
    p_weight = pointer_of_layer(i, p_weights, LAYERS, ALIGNED)
    i_local = i - of_layer(i, LAYERS, START)
    n = size_of_layer(i, LAYERS, ALIGNED)
    total = tl.zeros([BLOCK], ACC)
    for j in range(N):
        k = (i_local * N + j) * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(p_grad + k, mask=k < n, other=0.0).to(ACC)
        w = tl.load(p_weight + k, mask=k < n, other=0.0).to(ACC)
        total += g * w
    tl.store(p_dots + i, tl.sum(total))


@triton.jit
def _combine_kernel(
    p_grads,  # tuple of L pointers to G
    p_outs,  # tuple of L pointers to dW
    p_dots,
    p_state,
    p_sigma,  # (L,)
    p_grad_sigma,  # (L,)
    LAYERS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
):
    """dW for a tile of one layer. Its partial sums of <G, W> are those at U_SUMS."""
    i = tl.program_id(0)
    p_grad, p_out = pointer_of_layer(i, p_grads, LAYERS), pointer_of_layer(i, p_outs, LAYERS)
    n_rows, n_cols = of_layer(i, LAYERS, ROWS), of_layer(i, LAYERS, COLS)
    i_local = i - of_layer(i, LAYERS, START)
    layer = index_of_layer(i, LAYERS)
    sigma = tl.load(p_sigma + layer)
    dot = sum_of(p_dots + of_layer(i, LAYERS, U_SUMS), of_layer(i, LAYERS, U_COUNT), P)
    along = tl.load(p_grad_sigma + layer) - divide(divide(dot, sigma), sigma)

    across = (n_cols + C - 1) // C
    rows = (i_local // across) * R + tl.arange(0, R)
    places = (i_local % across) * C + tl.arange(0, C)
    m_rows, m_cols = rows < n_rows, places < n_cols
    inner, outer = of_layer(i, LAYERS, INNER), of_layer(i, LAYERS, OUTER)
    cols = (places % inner) * outer + places // inner
    u = tl.load(p_state + of_layer(i, LAYERS, U) + rows, mask=m_rows, other=0.0)
    v = tl.load(p_state + of_layer(i, LAYERS, V) + cols, mask=m_cols, other=0.0)
    k = rows[:, None] * n_cols + places[None, :]
    m = m_rows[:, None] & m_cols[None, :]
    g = tl.load(p_grad + k, mask=m, other=0.0).to(ACC)
    dw = g * divide(1.0, sigma) + along * (u[:, None] * v[None, :])
    tl.store(p_out + k, dw.to(p_out.dtype.element_ty), mask=m)


# --- operator ------------------------------------------------------------------------------------------------------


def _launch(
    grads: Sequence[Tensor], weights: Sequence[Tensor], state: Tensor, sigma: Tensor, grad_sigma: Tensor
) -> list[Tensor]:
    """dW of every weight, in the layout of the weight."""
    weights = [as_stored(w) for w in weights]
    outs = [torch.empty_like(w) for w in weights]
    if must_launch(state):
        # A gradient with strides of its own is copied into those of its weight.
        grads = [
            g if g.stride() == w.stride() else torch.empty_like(w, dtype=g.dtype).copy_(g)
            for g, w in zip(grads, weights, strict=True)
        ]
        with torch.cuda.device_of(state):
            _launch_passes(grads, weights, state, sigma, grad_sigma.contiguous(), outs)
    return outs


def _launch_passes(grads, weights, state, sigma, grad_sigma, outs):
    """Fill ``outs``."""
    layers = [layer_of(w) for w in weights]
    per_dot = BLOCK * BLOCKS_A_DOT
    of_dot = [blocks(layer.rows * layer.cols, per_dot) for layer in layers]
    R, C = COMBINE_TILE
    of_all = [blocks(layer.rows, R) * blocks(layer.cols, C) for layer in layers]
    dots = state.new_empty(sum(of_dot))
    shared = {"ACC": TRITON_TYPE[state.dtype], "num_warps": WARPS}
    _dot_kernel[(sum(of_dot),)](
        tuple(grads), tuple(weights), dots,
        LAYERS=plan(layers, of_dot), ALIGNED=aligned(layers, weights, grads), BLOCK=BLOCK, N=BLOCKS_A_DOT, **shared,
    )  # fmt: skip
    _combine_kernel[(sum(of_all),)](
        tuple(grads), tuple(outs), dots, state, sigma, grad_sigma,
        LAYERS=plan(layers, of_all, sums=of_dot), R=R, C=C, P=largest(of_dot), **shared,
    )  # fmt: skip


def _keep_for_second_order(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grads, weights, state, sigma, _ = inputs
    ctx.save_for_backward(*grads, *weights, state, sigma)


def _backward_of_backward(ctx: Any, above: Sequence[Tensor]) -> tuple[Any, ...]:
    """Of ``dW = G / s + (ds - <G, W> / s^2) u v'``, for cotangents H of each dW; u, v constants."""
    *both, state, sigma = ctx.saved_tensors
    n = len(both) // 2
    dg, dw, ds, dds = [], [], [], []
    us, vs = split_state(state, both[n:])
    for i, (G, W, H, u, v) in enumerate(zip(both[:n], both[n:], above, us, vs, strict=True)):
        s = sigma[i]
        G, W_, H = (t.to(s.dtype).flatten(1) for t in (G, W, H))
        h = u @ (H @ v)
        dot = (G * W_).sum()
        dg.append((H / s - h / s**2 * W_).view(W.shape).to(both[i].dtype))
        dw.append((-h / s**2 * G).view(W.shape).to(W.dtype))
        ds.append(2 * h * dot / s**3 - (H * G).sum() / s**2)
        dds.append(h)
    return dg, dw, None, torch.stack(ds), torch.stack(dds)


spectral_norm_backward = operator(
    "spectral_norm_backward",
    _launch,
    setup_context=_keep_for_second_order,
    backward=_backward_of_backward,
)
"""(grads, weights, state, sigma, grad_sigma) -> dW of every weight."""


# --- compiled without a GPU ----------------------------------------------------------------------------------------


def _offline() -> Iterator[Variant]:
    count = len(SNGAN_32)
    for weight, grad in (("*fp32", "*fp32"), ("*fp32", "*bf16"), ("*bf16", "*bf16")):
        grads, weights = (grad,) * count, (weight,) * count
        constants = dict.fromkeys(("LAYERS", "ALIGNED", "BLOCK", "N", "ACC"), "constexpr")
        yield Variant(
            _dot_kernel,
            f"{grad[1:]} by {weight[1:]}",
            {"p_grads": grads, "p_weights": weights, "p_dots": "*fp32", **constants},
            {"LAYERS": plan(SNGAN_32, [1] * count), "ALIGNED": True, "BLOCK": BLOCK}
            | {"N": BLOCKS_A_DOT, "ACC": tl.float32},
            WARPS,
        )
        rest = dict.fromkeys(("p_dots", "p_state", "p_sigma", "p_grad_sigma"), "*fp32")
        rest |= dict.fromkeys(("LAYERS", "R", "C", "P", "ACC"), "constexpr")
        yield Variant(
            _combine_kernel,
            f"{grad[1:]} to {weight[1:]}",
            {"p_grads": grads, "p_outs": weights, **rest},
            {"LAYERS": plan(SNGAN_32, [1] * count, sums=[1] * count), "ACC": tl.float32, "P": 256}
            | {"R": COMBINE_TILE[0], "C": COMBINE_TILE[1]},
            WARPS,
        )


OFFLINE = () if INTERPRETED else tuple(_offline())

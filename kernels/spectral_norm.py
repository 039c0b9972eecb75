"""Spectral norm of all of D's weights in three launches: ``W / sigma`` with ``sigma = u' W v``.

One power iteration of a weight as a matrix W (rows, columns), in the order of torch's parametrization::

    t = W v     u = t / max(|t|, eps)          launch 1, a program a block of rows
    s = W' u    v = s / max(|s|, eps)          launch 2, a program a block of columns
    sigma = u' W v = s' v                      launch 3, which writes W / sigma
    (torch's older hook: launches 1 and 2 the other way round)

so W is read three times and written once: 16 bytes an element in fp32, 14 with a bf16 result. A norm is summed from
partial sums, one a program of the launch before, always in one order: equal inputs give equal bits. Each further
iteration takes two launches more; without any (eval mode) there are two in all, and a small copy of u and v.

The derivative is in ``spectral_norm_backward``.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdat.kernels import formulas
from fastdat.kernels.dispatch import INTERPRETED
from fastdat.kernels.formulas import check_spectral_norm
from fastdat.kernels.multi_tensor import (
    BLOCK,
    COLS,
    COLUMNS_TILE,
    INNER,
    OUTER,
    ROWS,
    ROWS_TILE,
    SNGAN_32,
    START,
    TRITON_TYPE,
    U_COUNT,
    U_SUMS,
    V_COUNT,
    V_SUMS,
    WARPS,
    U,
    V,
    accumulator,
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
    state_size,
    sum_of,
)
from fastdat.kernels.offline import Variant
from fastdat.kernels.operator import must_launch, operator
from fastdat.kernels.rounding import divide, square_root
from fastdat.kernels.spectral_norm_backward import spectral_norm_backward

# Where a pass takes its vector from.
BUFFERS = tl.constexpr(0)  # the user's u or v, as it is
WORK = tl.constexpr(1)  # the pass before, to be normalised
STATE = tl.constexpr(2)  # no iteration: u and v as they are, and the sum wanted is u'Wv


# --- kernels -------------------------------------------------------------------------------------------------------


@triton.jit
def _rows_kernel(
    p_weights,  # tuple of L pointers to weights
    p_vs,  # tuple of L pointers to v, read if SOURCE is BUFFERS
    p_work,
    p_state,
    eps,
    LAYERS: tl.constexpr,
    SOURCE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
):
    """t = W v for R rows of one layer; v normalised is written down on the way by the layer's first program."""
    i = tl.program_id(0)
    p_weight = pointer_of_layer(i, p_weights, LAYERS)
    n_rows, n_cols = of_layer(i, LAYERS, ROWS), of_layer(i, LAYERS, COLS)
    inner, outer = of_layer(i, LAYERS, INNER), of_layer(i, LAYERS, OUTER)
    o_u, o_v = of_layer(i, LAYERS, U), of_layer(i, LAYERS, V)
    i_local = i - of_layer(i, LAYERS, START)
    if SOURCE == BUFFERS:
        p_v = pointer_of_layer(i, p_vs, LAYERS)
        scale = 1.0
    elif SOURCE == WORK:
        p_v = p_work + o_v
        norm = square_root(sum_of(p_work + of_layer(i, LAYERS, V_SUMS), of_layer(i, LAYERS, V_COUNT), P))
        scale = divide(1.0, tl.maximum(norm, eps))
    else:
        p_v = p_state + o_v
        scale = 1.0

    rows = i_local * R + tl.arange(0, R)
    m_rows = rows < n_rows
    total = tl.zeros([R, C], ACC)
    at = 0
    while at < n_cols:
        places = at + tl.arange(0, C)
        m_cols = places < n_cols
        cols = (places % inner) * outer + places // inner
        v = tl.load(p_v + cols, mask=m_cols, other=0.0).to(ACC) * scale
        if SOURCE == WORK:
            tl.store(p_state + o_v + cols, v, mask=m_cols & (i_local == 0))
        w = tl.load(
            p_weight + rows[:, None] * n_cols + places[None, :],
            mask=m_rows[:, None] & m_cols[None, :],
            other=0.0,
        )
        total += w.to(ACC) * v[None, :]
        at += C
    t = tl.sum(total, 1)
    if SOURCE == STATE:
        terms = t * tl.load(p_state + o_u + rows, mask=m_rows, other=0.0)
    else:
        terms = t * t
        tl.store(p_work + o_u + rows, t, mask=m_rows)
    tl.store(p_work + of_layer(i, LAYERS, U_SUMS) + i_local, tl.sum(terms))


@triton.jit
def _columns_kernel(
    p_weights,  # tuple of L pointers to weights
    p_us,  # tuple of L pointers to u, read if SOURCE is BUFFERS
    p_work,
    p_state,
    eps,
    LAYERS: tl.constexpr,
    SOURCE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
):
    """s = W' u for C columns of one layer; u normalised is written down on the way by the layer's first program."""
    i = tl.program_id(0)
    p_weight = pointer_of_layer(i, p_weights, LAYERS)
    n_rows, n_cols = of_layer(i, LAYERS, ROWS), of_layer(i, LAYERS, COLS)
    inner, outer = of_layer(i, LAYERS, INNER), of_layer(i, LAYERS, OUTER)
    o_u, o_v = of_layer(i, LAYERS, U), of_layer(i, LAYERS, V)
    i_local = i - of_layer(i, LAYERS, START)
    if SOURCE == BUFFERS:
        p_u = pointer_of_layer(i, p_us, LAYERS)
        scale = 1.0
    else:
        p_u = p_work + o_u
        norm = square_root(sum_of(p_work + of_layer(i, LAYERS, U_SUMS), of_layer(i, LAYERS, U_COUNT), P))
        scale = divide(1.0, tl.maximum(norm, eps))

    places = i_local * C + tl.arange(0, C)
    m_cols = places < n_cols
    total = tl.zeros([R, C], ACC)
    at = 0
    while at < n_rows:
        rows = at + tl.arange(0, R)
        m_rows = rows < n_rows
        u = tl.load(p_u + rows, mask=m_rows, other=0.0).to(ACC) * scale
        if SOURCE == WORK:
            tl.store(p_state + o_u + rows, u, mask=m_rows & (i_local == 0))
        w = tl.load(
            p_weight + rows[:, None] * n_cols + places[None, :],
            mask=m_rows[:, None] & m_cols[None, :],
            other=0.0,
        )
        total += w.to(ACC) * u[:, None]
        at += R
    s = tl.sum(total, 0)
    cols = (places % inner) * outer + places // inner
    tl.store(p_work + o_v + cols, s, mask=m_cols)
    tl.store(p_work + of_layer(i, LAYERS, V_SUMS) + i_local, tl.sum(s * s))


@triton.jit
def _divide_kernel(
    p_weights,  # tuple of L pointers to weights
    p_outs,  # tuple of L pointers to W / sigma
    p_work,
    p_state,
    p_sigma,  # (L,)
    eps,
    LAYERS: tl.constexpr,
    LAST: tl.constexpr,  # U or V, the vector that the last pass left unscaled; START if there was none
    ALIGNED: tl.constexpr,  # pointers and sizes are multiples of 16
    BLOCK: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
):
    """W / sigma for BLOCK elements of one layer, and BLOCK elements of the last vector."""
    i = tl.program_id(0)
    i_local = i - of_layer(i, LAYERS, START)
    n_rows, n_cols = of_layer(i, LAYERS, ROWS), of_layer(i, LAYERS, COLS)
    k = i_local * BLOCK + tl.arange(0, BLOCK)
    if LAST == V:
        o_sums, count = of_layer(i, LAYERS, V_SUMS), of_layer(i, LAYERS, V_COUNT)
        o_last, n_last = of_layer(i, LAYERS, V), n_cols
    else:
        o_sums, count = of_layer(i, LAYERS, U_SUMS), of_layer(i, LAYERS, U_COUNT)
        o_last, n_last = of_layer(i, LAYERS, U), n_rows
    total = sum_of(p_work + o_sums, count, P)
    if LAST == START:
        sigma = total
    else:
        bound = tl.maximum(square_root(total), eps)
        sigma = divide(total, bound)
        last = tl.load(p_work + o_last + k, mask=k < n_last, other=0.0)
        tl.store(p_state + o_last + k, last * divide(1.0, bound), mask=k < n_last)
    layer = index_of_layer(i, LAYERS)
    tl.store(p_sigma + layer, sigma, mask=i_local == 0)
    m = k < size_of_layer(i, LAYERS, ALIGNED)
    w = tl.load(pointer_of_layer(i, p_weights, LAYERS, ALIGNED) + k, mask=m, other=0.0).to(ACC)
    p_out = pointer_of_layer(i, p_outs, LAYERS, ALIGNED)
    # One exact division a program: one an element would take twice the registers.
    tl.store(p_out + k, (w * divide(1.0, sigma)).to(p_out.dtype.element_ty), mask=m)


# --- operator ------------------------------------------------------------------------------------------------------


def _launch(weights, us, vs, iterations, eps, u_first, out_dtype):
    """``W / sigma``, u and v of all weights one after another (see ``split_state``), and sigma (L,)."""
    check_spectral_norm(weights, us, vs)
    weights = [as_stored(w) for w in weights]
    outs = [torch.empty_like(w, dtype=out_dtype) for w in weights]
    dtype = accumulator(weights[0])
    sigma = weights[0].new_empty(len(weights), dtype=dtype)
    given = () if iterations else [s.to(dtype) for s in (*us, *vs)]
    state = torch.cat(given) if given else weights[0].new_empty(state_size(weights), dtype=dtype)
    if must_launch(sigma):
        us, vs = [u.contiguous() for u in us], [v.contiguous() for v in vs]
        with torch.cuda.device_of(sigma):
            _launch_passes(weights, us, vs, iterations, eps, u_first, outs, state, sigma)
    return outs, state, sigma


def _launch_passes(weights, us, vs, iterations, eps, u_first, outs, state, sigma):
    """Fill ``outs``, ``state`` and ``sigma``."""
    layers = [layer_of(w) for w in weights]
    of_rows = [blocks(layer.rows, ROWS_TILE[0]) for layer in layers]
    of_cols = [blocks(layer.cols, COLUMNS_TILE[1]) for layer in layers]
    of_all = [blocks(layer.rows * layer.cols, BLOCK) for layer in layers]
    work = sigma.new_empty(state_size(weights) + sum(of_rows) + sum(of_cols))
    shared = {"ACC": TRITON_TYPE[sigma.dtype], "num_warps": WARPS}
    p_weights = tuple(weights)

    def rows_pass(source: int) -> None:
        _rows_kernel[(sum(of_rows),)](
            p_weights, tuple(vs), work, state, eps,
            LAYERS=plan(layers, of_rows), SOURCE=source, R=ROWS_TILE[0], C=ROWS_TILE[1], P=largest(of_cols), **shared,
        )  # fmt: skip

    def columns_pass(source: int) -> None:
        _columns_kernel[(sum(of_cols),)](
            p_weights, tuple(us), work, state, eps,
            LAYERS=plan(layers, of_cols), SOURCE=source, R=COLUMNS_TILE[0], C=COLUMNS_TILE[1], P=largest(of_rows),
            **shared,
        )  # fmt: skip

    first, second = (rows_pass, columns_pass) if u_first else (columns_pass, rows_pass)
    last = V if u_first else U
    if not iterations:
        rows_pass(STATE.value)
        last = START
    for k in range(iterations):
        first(BUFFERS.value if k == 0 else WORK.value)
        second(WORK.value)
    _divide_kernel[(sum(of_all),)](
        p_weights, tuple(outs), work, state, sigma, eps,
        LAYERS=plan(layers, of_all), LAST=last.value, ALIGNED=aligned(layers, weights, outs), BLOCK=BLOCK,
        P=max(largest(of_rows), largest(of_cols)), **shared,
    )  # fmt: skip


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    weights = inputs[0]
    _, state, sigma = output
    ctx.mark_non_differentiable(state)
    ctx.save_for_backward(*weights, state, sigma)


def _backward(ctx: Any, grads: Sequence[Tensor], _: Tensor | None, grad_sigma: Tensor) -> tuple[Any, ...]:
    *weights, state, sigma = ctx.saved_tensors
    found = spectral_norm_backward(list(grads), list(weights), state, sigma, grad_sigma)
    constants = [None] * len(weights)  # u and v
    return list(found), constants, constants, None, None, None, None


_of_lists = operator(
    "spectral_norm",
    _launch,
    like=formulas.spectral_norm,
    returns=tuple[list[Tensor], Tensor, Tensor],
    setup_context=_keep,
    backward=_backward,
)


def spectral_norm(
    weights: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor], *rest: Any, **named: Any
) -> tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    """As ``formulas.spectral_norm``."""
    outs, state, sigma = _of_lists(list(weights), list(us), list(vs), *rest, **named)
    return (outs, *split_state(state, weights), sigma)


# --- compiled without a GPU ----------------------------------------------------------------------------------------


def _offline() -> Iterator[Variant]:
    count = len(SNGAN_32)
    rest = {"p_work": "*fp32", "p_state": "*fp32", "eps": "fp32"}
    rest |= dict.fromkeys(("LAYERS", "SOURCE", "R", "C", "P", "ACC"), "constexpr")
    shared = {"LAYERS": plan(SNGAN_32, [1] * count), "P": 256, "ACC": tl.float32}
    passes = (
        (_rows_kernel, "p_vs", ROWS_TILE, (BUFFERS, WORK, STATE)),
        (_columns_kernel, "p_us", COLUMNS_TILE, (BUFFERS, WORK)),
    )
    for kernel, states, (R, C), sources in passes:
        for source, dtype in itertools.product(sources, ("*fp32", "*bf16")):
            yield Variant(
                kernel,
                f"{dtype[1:]}, source {source.value}",
                {"p_weights": (dtype,) * count, states: ("*fp32",) * count, **rest},
                {**shared, "SOURCE": source.value, "R": R, "C": C},
                WARPS,
            )
    for weight, out in (("*fp32", "*fp32"), ("*fp32", "*bf16"), ("*bf16", "*bf16")):
        for last in (START, U, V):
            tensors: dict[str, str | tuple[str, ...]] = {
                "p_weights": (weight,) * count,
                "p_outs": (out,) * count,
            }
            yield Variant(
                _divide_kernel,
                f"{weight[1:]} to {out[1:]}, last {last.value}",
                tensors
                | dict.fromkeys(("p_work", "p_state", "p_sigma"), "*fp32")
                | {"eps": "fp32"}
                | dict.fromkeys(("LAYERS", "LAST", "ALIGNED", "BLOCK", "P", "ACC"), "constexpr"),
                {**shared, "LAST": last.value, "ALIGNED": True, "BLOCK": BLOCK},
                WARPS,
            )


OFFLINE = () if INTERPRETED else tuple(_offline())

"""The kernels of ``spectral_norm``: its passes over all of D's weights (see there)."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

import itertools
from collections.abc import Iterator

import triton
import triton.language as tl

from fastdat.kernels import multi_tensor
from fastdat.kernels.dispatch import INTERPRETED
from fastdat.kernels.multi_tensor import (
    ALL,
    COLS,
    INNER,
    IS_WIDE,
    OUTER,
    ROWS,
    SNGAN_32,
    SOME,
    START,
    U_COUNT,
    U_SUMS,
    V_COUNT,
    V_SUMS,
    WORK_U,
    WORK_V,
    U,
    V,
    cols_of_layer,
    index_of_layer,
    of_layer,
    pointer_of_layer,
    size_of_layer,
    sum_of,
    sums_of,
    table,
    which,
    wide_by_rows,
    work_of,
)  # fmt: skip
from fastdat.kernels.offline import Variant
from fastdat.kernels.rounding import divide, square_root

# Where a pass takes its vector from.
BUFFERS = tl.constexpr(0)  # the user's u or v, as it is
WORK = tl.constexpr(1)  # the pass before, to be normalised
STATE = tl.constexpr(2)  # no iteration: u and v as they are, and the sum wanted is u'Wv


# --- kernels -------------------------------------------------------------------------------------------------------


@triton.jit
def _over_norm(squares, eps):
    return divide(1.0, tl.maximum(square_root(squares), eps))


@triton.jit
def _rows(
    i,
    p_weights,
    p_vs,
    p_work,
    p_state,
    eps,
    LAYERS: tl.constexpr,
    SOURCE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    STAGES: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,
):
    p_weight = pointer_of_layer(i, p_weights, LAYERS, WIDE)
    n_rows, n_cols = of_layer(i, LAYERS, ROWS), cols_of_layer(i, LAYERS, WIDE)
    inner, outer = of_layer(i, LAYERS, INNER), of_layer(i, LAYERS, OUTER)
    i_local = i - of_layer(i, LAYERS, START)
    if SOURCE == BUFFERS:
        p_v = pointer_of_layer(i, p_vs, LAYERS, False)
    elif SOURCE == WORK:
        p_v = p_work + tl.multiple_of(of_layer(i, LAYERS, WORK_V), 16)
        sums = sums_of(p_work + of_layer(i, LAYERS, V_SUMS), of_layer(i, LAYERS, V_COUNT), P)
    else:
        p_v = p_state + of_layer(i, LAYERS, V)

    rows = i_local * R + tl.arange(0, R)
    m_rows = rows < n_rows
    total = tl.zeros([R, C], ACC)
    for at in tl.range(0, n_cols, C, num_stages=STAGES):
        places = at + tl.arange(0, C)
        m_cols = places < n_cols
        cols = places if SOURCE == WORK else (places % inner) * outer + places // inner
        v = tl.load(p_v + cols, mask=m_cols, other=0.0).to(ACC)
        w = tl.load(
            p_weight + rows[:, None] * n_cols + places[None, :],
            mask=m_rows[:, None] & m_cols[None, :],
            other=0.0,
        )
        total += w.to(ACC) * v[None, :]
    t = tl.sum(total, 1)
    if SOURCE == WORK:
        t *= _over_norm(tl.sum(sums), eps)
    if SOURCE == STATE:
        terms = t * tl.load(p_state + of_layer(i, LAYERS, U) + rows, mask=m_rows, other=0.0)
    else:
        terms = t * t
        tl.store(p_work + of_layer(i, LAYERS, WORK_U) + rows, t, mask=m_rows)
    tl.store(p_work + of_layer(i, LAYERS, U_SUMS) + i_local, tl.sum(terms))


@triton.jit
def rows_kernel(
    p_weights,  # tuple of L pointers to weights
    p_vs,  # tuple of L pointers to v, read if SOURCE is BUFFERS
    p_work,
    p_state,
    eps,
    LAYERS: tl.constexpr,
    SOURCE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    STAGES: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,  # which layers are
):
    """t = W v for R rows of one layer, v normalised."""
    i = tl.program_id(0)
    if WIDE != SOME:
        _rows(i, p_weights, p_vs, p_work, p_state, eps, LAYERS, SOURCE, R, C, STAGES, P, ACC, WIDE == ALL)
    elif of_layer(i, LAYERS, IS_WIDE) != 0:
        _rows(i, p_weights, p_vs, p_work, p_state, eps, LAYERS, SOURCE, R, C, STAGES, P, ACC, True)
    else:
        _rows(i, p_weights, p_vs, p_work, p_state, eps, LAYERS, SOURCE, R, C, STAGES, P, ACC, False)


@triton.jit
def _columns(
    i,
    p_weights,
    p_us,
    p_work,
    eps,
    LAYERS: tl.constexpr,
    SOURCE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    STAGES: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,
):
    p_weight = pointer_of_layer(i, p_weights, LAYERS, WIDE)
    n_rows, n_cols = of_layer(i, LAYERS, ROWS), cols_of_layer(i, LAYERS, WIDE)
    i_local = i - of_layer(i, LAYERS, START)
    if SOURCE == BUFFERS:
        p_u = pointer_of_layer(i, p_us, LAYERS, False)
    else:
        p_u = p_work + tl.multiple_of(of_layer(i, LAYERS, WORK_U), 16)
        sums = sums_of(p_work + of_layer(i, LAYERS, U_SUMS), of_layer(i, LAYERS, U_COUNT), P)

    places = i_local * C + tl.arange(0, C)
    m_cols = places < n_cols
    total = tl.zeros([R, C], ACC)
    for at in tl.range(0, n_rows, R, num_stages=STAGES):
        rows = at + tl.arange(0, R)
        m_rows = rows < n_rows
        u = tl.load(p_u + rows, mask=m_rows, other=0.0).to(ACC)
        w = tl.load(
            p_weight + rows[:, None] * n_cols + places[None, :],
            mask=m_rows[:, None] & m_cols[None, :],
            other=0.0,
        )
        total += w.to(ACC) * u[:, None]
    s = tl.sum(total, 0)
    if SOURCE == WORK:
        s *= _over_norm(tl.sum(sums), eps)
    tl.store(p_work + tl.multiple_of(of_layer(i, LAYERS, WORK_V), 16) + places, s, mask=m_cols)
    tl.store(p_work + of_layer(i, LAYERS, V_SUMS) + i_local, tl.sum(s * s))


@triton.jit
def columns_kernel(
    p_weights,  # tuple of L pointers to weights
    p_us,  # tuple of L pointers to u, read if SOURCE is BUFFERS
    p_work,
    eps,
    LAYERS: tl.constexpr,
    SOURCE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    STAGES: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,  # which layers are
):
    """s = W' u for C columns of one layer, u normalised."""
    i = tl.program_id(0)
    if WIDE != SOME:
        _columns(i, p_weights, p_us, p_work, eps, LAYERS, SOURCE, R, C, STAGES, P, ACC, WIDE == ALL)
    elif of_layer(i, LAYERS, IS_WIDE) != 0:
        _columns(i, p_weights, p_us, p_work, eps, LAYERS, SOURCE, R, C, STAGES, P, ACC, True)
    else:
        _columns(i, p_weights, p_us, p_work, eps, LAYERS, SOURCE, R, C, STAGES, P, ACC, False)


@triton.jit
def _scaled(
    i,
    at,
    factor,
    p_weights,
    p_outs,
    LAYERS: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,
):
    m = at < size_of_layer(i, LAYERS, WIDE)
    w = tl.load(pointer_of_layer(i, p_weights, LAYERS, WIDE) + at, mask=m, other=0.0).to(ACC)
    p_out = pointer_of_layer(i, p_outs, LAYERS, WIDE)
    tl.store(p_out + at, (w * factor).to(p_out.dtype.element_ty), mask=m)


@triton.jit
def divide_kernel(
    p_weights,  # tuple of L pointers to weights
    p_outs,  # tuple of L pointers to W / sigma
    p_work,
    p_state,
    p_sigma,  # (L,)
    eps,
    LAYERS: tl.constexpr,
    LAST: tl.constexpr,  # U or V, the vector of the last pass; START if there was none
    BLOCK: tl.constexpr,
    S: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,  # which layers are
):
    """W / sigma for BLOCK elements of one layer, and S elements of u and of v, normalised."""
    i = tl.program_id(0)
    i_local = i - of_layer(i, LAYERS, START)
    if LAST == V:
        total = sum_of(p_work + of_layer(i, LAYERS, V_SUMS), of_layer(i, LAYERS, V_COUNT), P)
    else:
        total = sum_of(p_work + of_layer(i, LAYERS, U_SUMS), of_layer(i, LAYERS, U_COUNT), P)
    if LAST == START:
        sigma = total
    else:
        sigma = divide(total, tl.maximum(square_root(total), eps))
        n_rows, n_cols = of_layer(i, LAYERS, ROWS), of_layer(i, LAYERS, COLS)
        k = i_local * S + tl.arange(0, S)
        if i_local * S < n_rows:
            squares = sum_of(p_work + of_layer(i, LAYERS, U_SUMS), of_layer(i, LAYERS, U_COUNT), P)
            u = tl.load(p_work + of_layer(i, LAYERS, WORK_U) + k, mask=k < n_rows, other=0.0)
            tl.store(p_state + of_layer(i, LAYERS, U) + k, u * _over_norm(squares, eps), mask=k < n_rows)
        if i_local * S < n_cols:
            squares = sum_of(p_work + of_layer(i, LAYERS, V_SUMS), of_layer(i, LAYERS, V_COUNT), P)
            v = tl.load(p_work + of_layer(i, LAYERS, WORK_V) + k, mask=k < n_cols, other=0.0)
            inner = of_layer(i, LAYERS, INNER)
            cols = (k % inner) * of_layer(i, LAYERS, OUTER) + k // inner
            tl.store(p_state + of_layer(i, LAYERS, V) + cols, v * _over_norm(squares, eps), mask=k < n_cols)
    if i_local == 0:
        tl.store(p_sigma + index_of_layer(i, LAYERS), sigma)
    # One exact division a program: one an element would take twice the registers.
    factor = divide(1.0, sigma)
    at = i_local * BLOCK + tl.arange(0, BLOCK)
    if WIDE != SOME:
        _scaled(i, at, factor, p_weights, p_outs, LAYERS, BLOCK, ACC, WIDE == ALL)
    elif of_layer(i, LAYERS, IS_WIDE) != 0:
        _scaled(i, at, factor, p_weights, p_outs, LAYERS, BLOCK, ACC, True)
    else:
        _scaled(i, at, factor, p_weights, p_outs, LAYERS, BLOCK, ACC, False)


# --- compiled without a GPU ----------------------------------------------------------------------------------------


def _offline() -> Iterator[Variant]:
    count = len(SNGAN_32)
    work, _ = work_of(SNGAN_32)
    constants = ("LAYERS", "SOURCE", "R", "C", "STAGES", "P", "ACC", "WIDE")
    rest = {"eps": "fp32"} | dict.fromkeys(constants, "constexpr")
    by_rows = wide_by_rows(SNGAN_32, [True] * count)
    shared = {"LAYERS": table(SNGAN_32, [1] * count, by_rows, work), "P": 256, "ACC": tl.float32}
    passes = (
        (rows_kernel, "p_vs", ("p_work", "p_state"), multi_tensor.TILES.rows, (BUFFERS, WORK, STATE)),
        (columns_kernel, "p_us", ("p_work",), multi_tensor.TILES.columns, (BUFFERS, WORK)),
    )
    for kernel, states, buffers, tile, sources in passes:
        for source, dtype in itertools.product(sources, ("*fp32", "*bf16")):
            yield Variant(
                kernel,
                f"{dtype[1:]}, source {source.value}",
                {
                    "p_weights": (dtype,) * count,
                    states: ("*fp32",) * count,
                    **dict.fromkeys(buffers, "*fp32"),
                    **rest,
                },
                {**shared, "SOURCE": source.value, "R": tile.rows, "C": tile.cols, "STAGES": tile.stages}
                | {"WIDE": which(by_rows)},
                tile.warps,
            )
    for weight, out in (("*fp32", "*fp32"), ("*fp32", "*bf16"), ("*bf16", "*bf16")):
        for last in (START, U, V):
            tensors: dict[str, str | tuple[str, ...]] = {
                "p_weights": (weight,) * count,
                "p_outs": (out,) * count,
            }
            yield Variant(
                divide_kernel,
                f"{weight[1:]} to {out[1:]}, last {last.value}",
                tensors
                | dict.fromkeys(("p_work", "p_state", "p_sigma"), "*fp32")
                | {"eps": "fp32"}
                | dict.fromkeys(("LAYERS", "LAST", "BLOCK", "S", "P", "ACC", "WIDE"), "constexpr"),
                {
                    **shared,
                    "LAST": last.value,
                    "BLOCK": multi_tensor.TILES.divide.cols,
                    "S": 128,
                    "WIDE": ALL.value,
                },
                multi_tensor.TILES.divide.warps,
            )


OFFLINE = () if INTERPRETED else tuple(_offline())

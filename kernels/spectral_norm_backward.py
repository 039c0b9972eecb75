"""The kernels of the derivative of ``spectral_norm``, for all of D's weights in two launches.

With G the gradient of ``W / sigma``, ``ds`` that of sigma, and u and v constants::

    launch 1: partial sums of <G, W>
    launch 2: dW = G / sigma + (ds - <G, W> / sigma^2) u v'

G is read twice, W once, dW written once.
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

from fastdat.kernels import multi_tensor, repeated
from fastdat.kernels.dispatch import INTERPRETED
from fastdat.kernels.multi_tensor import (
    ALL,
    INNER,
    IS_WIDE,
    LOOPS,
    OUTER,
    ROWS,
    SNGAN_32,
    SOME,
    START,
    TRITON_TYPE,
    U_COUNT,
    U_SUMS,
    Layer,
    U,
    V,
    blocks,
    cols_of_layer,
    index_of_layer,
    largest,
    layer_of,
    of_layer,
    pointer_of_layer,
    size_of_layer,
    sum_of,
    table,
    which,
    wide_by_rows,
    wide_in_line,
    work_of,
)  # fmt: skip
from fastdat.kernels.offline import Variant
from fastdat.kernels.repeated import Plans, Step, alignment, description
from fastdat.kernels.rounding import divide
from fastdat.kernels.stored import as_stored


@triton.jit
def _dot(
    i,
    p_grads,
    p_weights,
    p_dots,
    LAYERS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,
):
    p_grad = pointer_of_layer(i, p_grads, LAYERS, WIDE)
    p_weight = pointer_of_layer(i, p_weights, LAYERS, WIDE)
    i_local = i - of_layer(i, LAYERS, START)
    n = size_of_layer(i, LAYERS, WIDE)
    loops = of_layer(i, LAYERS, LOOPS)
    total = tl.zeros([BLOCK], ACC)
    for j in tl.range(0, loops, num_stages=STAGES):
        k = (i_local * loops + j) * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(p_grad + k, mask=k < n, other=0.0).to(ACC)
        w = tl.load(p_weight + k, mask=k < n, other=0.0).to(ACC)
        total += g * w
    tl.store(p_dots + i, tl.sum(total))


@triton.jit
def _dot_kernel(
    p_grads,  # tuple of L pointers to G
    p_weights,  # tuple of L pointers to weights
    p_dots,
    LAYERS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,  # which layers are
):
    """A partial sum of <G, W>, over LOOPS blocks of one layer."""
    i = tl.program_id(0)
    if WIDE != SOME:
        _dot(i, p_grads, p_weights, p_dots, LAYERS, BLOCK, STAGES, ACC, WIDE == ALL)
    elif of_layer(i, LAYERS, IS_WIDE) != 0:
        _dot(i, p_grads, p_weights, p_dots, LAYERS, BLOCK, STAGES, ACC, True)
    else:
        _dot(i, p_grads, p_weights, p_dots, LAYERS, BLOCK, STAGES, ACC, False)


@triton.jit
def _combine(
    i,
    p_grads,
    p_outs,
    p_dots,
    p_state,
    p_sigma,
    p_grad_sigma,
    LAYERS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    ACC: tl.constexpr,
    WIDE: tl.constexpr,
):
    p_grad, p_out = pointer_of_layer(i, p_grads, LAYERS, WIDE), pointer_of_layer(i, p_outs, LAYERS, WIDE)
    n_rows, n_cols = of_layer(i, LAYERS, ROWS), cols_of_layer(i, LAYERS, WIDE)
    i_local = i - of_layer(i, LAYERS, START)
    across = (n_cols + C - 1) // C
    rows = (i_local // across) * R + tl.arange(0, R)
    places = (i_local % across) * C + tl.arange(0, C)
    m_rows, m_cols = rows < n_rows, places < n_cols
    k = rows[:, None] * n_cols + places[None, :]
    m = m_rows[:, None] & m_cols[None, :]
    g = tl.load(p_grad + k, mask=m, other=0.0).to(ACC)

    layer = index_of_layer(i, LAYERS)
    sigma = tl.load(p_sigma + layer)
    dot = sum_of(p_dots + of_layer(i, LAYERS, U_SUMS), of_layer(i, LAYERS, U_COUNT), P)
    along = tl.load(p_grad_sigma + layer) - divide(divide(dot, sigma), sigma)
    inner, outer = of_layer(i, LAYERS, INNER), of_layer(i, LAYERS, OUTER)
    cols = (places % inner) * outer + places // inner
    u = tl.load(p_state + of_layer(i, LAYERS, U) + rows, mask=m_rows, other=0.0)
    v = tl.load(p_state + of_layer(i, LAYERS, V) + cols, mask=m_cols, other=0.0)
    dw = g * divide(1.0, sigma) + along * (u[:, None] * v[None, :])
    tl.store(p_out + k, dw.to(p_out.dtype.element_ty), mask=m)


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
    WIDE: tl.constexpr,  # which layers are
):
    """dW for a tile of one layer. Its partial sums of <G, W> are those at U_SUMS of ``p_dots``."""
    i = tl.program_id(0)
    if WIDE != SOME:
        _combine(
            i, p_grads, p_outs, p_dots, p_state, p_sigma, p_grad_sigma, LAYERS, R, C, P, ACC, WIDE == ALL
        )
    elif of_layer(i, LAYERS, IS_WIDE) != 0:
        _combine(i, p_grads, p_outs, p_dots, p_state, p_sigma, p_grad_sigma, LAYERS, R, C, P, ACC, True)
    else:
        _combine(i, p_grads, p_outs, p_dots, p_state, p_sigma, p_grad_sigma, LAYERS, R, C, P, ACC, False)


# --- launch --------------------------------------------------------------------------------------------------------


class _Plan:
    """What calls with arguments of equal shapes, layouts, types and devices share."""

    def __init__(self, grads: Sequence[Tensor], weights: Sequence[Tensor], state: Tensor):
        stored = [as_stored(w) for w in weights]
        self.has_copies = any(a is not b for a, b in zip(stored, weights, strict=True))
        self.to_copy = [i for i, w in enumerate(stored) if grads[i].stride() != w.stride()]
        self.layers = [layer_of(w) for w in stored]
        self.dtype = state.dtype
        _, self.of_dot = _dots_of(self.layers)
        self.steps: dict[Any, tuple[tuple[int, Step], ...]] = {}  # alignment of all pointers -> steps

    def steps_for(self, alignment: tuple[bool, ...] | None) -> tuple[tuple[int, Step], ...]:
        """The launches, each with the set of arguments that it takes: 0 dot, 1 combine."""
        layers, n = self.layers, len(self.layers)
        grads, weights, outs = [
            alignment[k * n : (k + 1) * n] if alignment else (True,) * n for k in range(3)
        ]
        line, tile = multi_tensor.TILES.dot, multi_tensor.TILES.combine
        in_line = wide_in_line(layers, [a and b for a, b in zip(grads, weights, strict=True)])
        by_rows = wide_by_rows(layers, [a and b for a, b in zip(grads, outs, strict=True)])
        of_all = [blocks(layer.rows, tile.rows) * blocks(layer.cols, tile.cols) for layer in layers]
        acc = TRITON_TYPE[self.dtype]
        return (0, Step(
            _dot_kernel, sum(self.of_dot), line.warps, LAYERS=_table(layers, self.of_dot, in_line),
            BLOCK=line.cols, STAGES=line.stages, ACC=acc, WIDE=which(in_line),
        )), (1, Step(
            _combine_kernel, sum(of_all), tile.warps, LAYERS=_table(layers, of_all, by_rows),
            R=tile.rows, C=tile.cols, P=largest(self.of_dot), ACC=acc, WIDE=which(by_rows),
        ))  # fmt: skip


def _dots_of(layers: Sequence[Layer]) -> tuple[list[int], list[int]]:
    """Of each layer: blocks that a program of the dot product adds up, and programs."""
    of_all = [blocks(layer.rows * layer.cols, multi_tensor.TILES.dot.cols) for layer in layers]
    loops = [max(multi_tensor.BLOCKS_A_DOT, blocks(n, multi_tensor.DOTS_A_LAYER)) for n in of_all]
    return loops, [blocks(n, each) for n, each in zip(of_all, loops, strict=True)]


def _table(
    layers: Sequence[Layer], programs: Sequence[int], wide: Sequence[bool]
) -> tuple[tuple[int, ...], ...]:
    """LAYERS; U_SUMS and U_COUNT are those of the partial dot products."""
    work, _ = work_of(layers)
    loops, of_dot = _dots_of(layers)
    starts = itertools.accumulate(of_dot, initial=0)
    work = [w._replace(u_sums=s, u_count=n) for w, s, n in zip(work, starts, of_dot, strict=False)]
    return table(layers, programs, wide, work, loops)


PLANS: Plans[_Plan] = Plans()


def launch(
    grads: Sequence[Tensor], weights: Sequence[Tensor], state: Tensor, sigma: Tensor, grad_sigma: Tensor
) -> list[Tensor]:
    """dW of every weight, in the layout of the weight."""
    key = description([*grads, *weights, state, sigma, grad_sigma])
    plan = PLANS.get(key)
    if plan is None:
        plan = PLANS[key] = _Plan(grads, weights, state)
    if plan.has_copies:
        weights = [as_stored(w) for w in weights]
    if plan.to_copy:  # a gradient with strides of its own is copied into those of its weight
        grads = list(grads)
        for i in plan.to_copy:
            grads[i] = torch.empty_like(weights[i], dtype=grads[i].dtype).copy_(grads[i])
    outs = [torch.empty_like(w) for w in weights]
    dots = state.new_empty(sum(plan.of_dot))

    tensors = [*grads, *weights, *outs, dots, state, sigma, grad_sigma.contiguous()]
    pointers = repeated.addresses(tensors)
    aligned = alignment(pointers)
    steps = plan.steps.get(aligned)
    if steps is None:
        steps = plan.steps[aligned] = plan.steps_for(aligned)

    def sets(of: Sequence[Any]) -> tuple[tuple[Any, ...], ...]:
        n = len(weights)
        g, w, o, rest = tuple(of[:n]), tuple(of[n : 2 * n]), tuple(of[2 * n : 3 * n]), of[3 * n :]
        return (g, w, rest[0]), (g, o, *rest)

    repeated.run(steps, state, tensors, pointers, sets)
    return outs


# --- compiled without a GPU ----------------------------------------------------------------------------------------


def _offline() -> Iterator[Variant]:
    count = len(SNGAN_32)
    dot, combine = multi_tensor.TILES.dot, multi_tensor.TILES.combine
    by_rows = wide_by_rows(SNGAN_32, [True] * count)
    constants_of_dot = dict.fromkeys(("LAYERS", "BLOCK", "STAGES", "ACC", "WIDE"), "constexpr")
    rest = dict.fromkeys(("p_dots", "p_state", "p_sigma", "p_grad_sigma"), "*fp32")
    rest |= dict.fromkeys(("LAYERS", "R", "C", "P", "ACC", "WIDE"), "constexpr")
    for weight, grad in (("*fp32", "*fp32"), ("*fp32", "*bf16"), ("*bf16", "*bf16")):
        grads, weights = (grad,) * count, (weight,) * count
        yield Variant(
            _dot_kernel,
            f"{grad[1:]} by {weight[1:]}",
            {"p_grads": grads, "p_weights": weights, "p_dots": "*fp32", **constants_of_dot},
            {"LAYERS": _table(SNGAN_32, [1] * count, [True] * count), "BLOCK": dot.cols}
            | {"STAGES": dot.stages, "ACC": tl.float32, "WIDE": ALL.value},
            dot.warps,
        )
        yield Variant(
            _combine_kernel,
            f"{grad[1:]} to {weight[1:]}",
            {"p_grads": grads, "p_outs": weights, **rest},
            {"LAYERS": _table(SNGAN_32, [1] * count, by_rows), "R": combine.rows, "C": combine.cols}
            | {"P": 128, "ACC": tl.float32, "WIDE": which(by_rows)},
            combine.warps,
        )


OFFLINE = () if INTERPRETED else tuple(_offline())

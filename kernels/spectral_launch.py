"""Starts the kernels of ``spectral_norm``: all of D's weights in three launches.

One power iteration of a weight as a matrix W (rows, columns), in the order of torch's parametrization::

    t = W v     u = t / max(|t|, eps)          launch 1, a program a block of rows
    s = W' u    v = s / max(|s|, eps)          launch 2, a program a block of columns
    sigma = u' W v = s' v                      launch 3, which writes W / sigma
    (torch's older hook: launches 1 and 2 the other way round)

so W is read three times and written once: 16 bytes an element in fp32, 14 with a bf16 result. A norm is summed from
partial sums, one a program of the launch before, always in one order: equal inputs give equal bits. Each further
iteration takes two launches more; without any (eval mode) there are two in all, and a small copy of u and v.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

from typing import Any

import torch

from fastdat.kernels import multi_tensor, repeated
from fastdat.kernels.formulas import check_spectral_norm
from fastdat.kernels.multi_tensor import (
    START,
    TRITON_TYPE,
    U,
    V,
    blocks,
    largest,
    layer_of,
    table,
    which,
    wide_by_rows,
    wide_in_line,
    work_of,
)  # fmt: skip
from fastdat.kernels.repeated import Plans, Step, alignment, description
from fastdat.kernels.spectral_passes import BUFFERS, STATE, WORK, columns_kernel, divide_kernel, rows_kernel
from fastdat.kernels.stored import accumulator, as_stored, state_size


class _Plan:
    """What calls with arguments of equal shapes, layouts, types and devices share."""

    def __init__(self, weights, us, vs, iterations, u_first):
        check_spectral_norm(weights, us, vs)
        stored = [as_stored(w) for w in weights]
        self.has_copies = any(a is not b for a, b in zip(stored, weights, strict=True))
        self.has_strides = not all(s.is_contiguous() for s in (*us, *vs))
        self.iterations, self.u_first = iterations, u_first
        self.dtype = accumulator(weights[0])
        self.layers = [layer_of(w) for w in stored]
        self.work, self.work_size = work_of(self.layers)
        self.state_size = state_size(weights)
        self.steps = {}  # alignment of all pointers -> steps

    def steps_for(self, alignment):
        """The launches, each with the set of arguments that it takes: 0 rows, 1 columns, 2 divide."""
        layers, work, n = self.layers, self.work, len(self.layers)
        of_weights, of_outs = (
            (alignment[:n], alignment[3 * n : 4 * n]) if alignment else ([True] * n, [True] * n)
        )
        acc = TRITON_TYPE[self.dtype]
        rows, columns, line = multi_tensor.TILES.rows, multi_tensor.TILES.columns, multi_tensor.TILES.divide
        by_rows = wide_by_rows(layers, of_weights)
        in_line = wide_in_line(layers, [a and b for a, b in zip(of_weights, of_outs, strict=True)])
        of_u, of_v = [w.u_count for w in work], [w.v_count for w in work]
        of_all = [blocks(layer.rows * layer.cols, line.cols) for layer in layers]
        shares = largest(blocks(max(layer[:2]), n) for layer, n in zip(layers, of_all, strict=True))

        def rows_step(source):
            return 0, Step(
                rows_kernel, sum(of_u), rows.warps, LAYERS=table(layers, of_u, by_rows, work), SOURCE=source.value,
                R=rows.rows, C=rows.cols, STAGES=rows.stages, P=largest(of_v), ACC=acc, WIDE=which(by_rows),
            )  # fmt: skip

        def columns_step(source):
            return 1, Step(
                columns_kernel, sum(of_v), columns.warps, LAYERS=table(layers, of_v, by_rows, work),
                SOURCE=source.value, R=columns.rows, C=columns.cols, STAGES=columns.stages, P=largest(of_u), ACC=acc,
                WIDE=which(by_rows),
            )  # fmt: skip

        first, second = (rows_step, columns_step) if self.u_first else (columns_step, rows_step)
        if self.iterations:
            later = [first(WORK), second(WORK)]
            passes = [first(BUFFERS), later[1], *later * (self.iterations - 1)]
            last = V if self.u_first else U
        else:
            passes, last = [rows_step(STATE)], START
        return *passes, (2, Step(
            divide_kernel, sum(of_all), line.warps, LAYERS=table(layers, of_all, in_line, work), LAST=last.value,
            BLOCK=line.cols, S=shares, P=largest((*of_u, *of_v)), ACC=acc, WIDE=which(in_line),
        ))  # fmt: skip


PLANS: Plans[_Plan] = Plans()


def launch(weights, us, vs, iterations, eps, u_first, out_dtype) -> Any:
    """``W / sigma``, u and v of all weights one after another (``stored.split_state``), and sigma (L,)."""
    key = iterations, u_first, len(us), description([*weights, *us, *vs])
    plan = PLANS.get(key)
    if plan is None:
        plan = PLANS[key] = _Plan(weights, us, vs, iterations, u_first)
    if plan.has_copies:
        weights = [as_stored(w) for w in weights]
    if plan.has_strides:
        us, vs = [u.contiguous() for u in us], [v.contiguous() for v in vs]
    outs = [torch.empty_like(w, dtype=out_dtype) for w in weights]
    dtype, device = plan.dtype, weights[0].device
    sigma = torch.empty(len(weights), dtype=dtype, device=device)
    if iterations:
        state = torch.empty(plan.state_size, dtype=dtype, device=device)
    else:
        state = torch.cat([s.to(dtype) for s in (*us, *vs)])
    work = torch.empty(plan.work_size, dtype=dtype, device=device)

    tensors = [*weights, *us, *vs, *outs, work, state, sigma]
    pointers = repeated.addresses(tensors)
    aligned = out_dtype, alignment(pointers)
    steps = plan.steps.get(aligned)
    if steps is None:
        steps = plan.steps[aligned] = plan.steps_for(aligned[1])

    def sets(of):
        n = len(weights)
        w, u, v, o = tuple(of[:n]), tuple(of[n : 2 * n]), tuple(of[2 * n : 3 * n]), tuple(of[3 * n : 4 * n])
        work, state, sigma = of[4 * n :]
        return (w, v, work, state, eps), (w, u, work, eps), (w, o, work, state, sigma, eps)

    repeated.run(steps, sigma, tensors, pointers, sets)
    return outs, state, sigma
